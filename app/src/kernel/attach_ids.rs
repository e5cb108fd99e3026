//! What aya 0.14 makes slow, worked round: it wants the kernel's whole BTF, parsed by itself, wherever it needs the number
//! of one type (`FEntry::load`, `FExit::load`, `BtfTracePoint::load`, `Iter::load`), compares each name of it in each call,
//! and reads and parses all of it again in `EbpfLoader::new`, wanted or not. On a kernel with BTF of 5 MiB each of these
//! parses costs as much as the verifier takes for twenty programs.

use std::{io, thread};

use anyhow::{Context as _, Result, anyhow};
use aya::{Btf, EbpfLoader, Endianness};

/// `BTF_KIND_FWD`, `BTF_KIND_TYPEDEF` and `BTF_KIND_FUNC` of `Documentation/bpf/btf.rst`: each is three words.
const FORWARD: u32 = 7;
const TYPEDEF: u32 = 8;
const FUNCTION: u32 = 12;

/// BTF in which these types have their numbers, and all others before them are nothing.
pub fn with<'a>(
    functions: impl Iterator<Item = (u32, &'a str)>,
    typedefs: impl Iterator<Item = (u32, &'a str)>,
) -> Result<Btf> {
    Btf::parse(&bytes(functions, typedefs)?, Endianness::default()).map_err(|error| anyhow!(error))
}

fn bytes<'a>(
    functions: impl Iterator<Item = (u32, &'a str)>,
    typedefs: impl Iterator<Item = (u32, &'a str)>,
) -> Result<Vec<u8>> {
    let functions = functions.map(|(number, name)| (number, name, FUNCTION));
    let typedefs = typedefs.map(|(number, name)| (number, name, TYPEDEF));
    let mut wanted: Vec<_> = functions.chain(typedefs).collect();
    wanted.sort_unstable();
    let mut strings = vec![0];
    let mut types: Vec<u8> = Vec::new();
    for (number, name, kind) in wanted {
        // The first type has the number 1.
        let at = (number as usize).checked_sub(1).context("void has no name")? * TYPE;
        fill(&mut types, at);
        for word in [u32::try_from(strings.len())?, kind << 24, 0] {
            types.extend(word.to_le_bytes());
        }
        strings.extend(name.bytes().chain([0]));
    }
    let (types_len, strings_len) = (u32::try_from(types.len())?, u32::try_from(strings.len())?);
    let mut data = vec![0x9f, 0xeb, 1, 0];
    for word in [24, 0, types_len, types_len, strings_len] {
        data.extend(u32::to_le_bytes(word));
    }
    data.extend(types);
    data.extend(strings);
    Ok(data)
}

/// Bytes of a type without details.
const TYPE: usize = 12;

fn fill(types: &mut Vec<u8>, to: usize) {
    let mut nothing = [0; TYPE];
    nothing[4..8].copy_from_slice(&(FORWARD << 24).to_le_bytes());
    let missing = to.saturating_sub(types.len()) / TYPE;
    types.extend(nothing.repeat(missing));
}

/// A loader that has not read the kernel's BTF: `EbpfLoader::new` goes on without it where it cannot open the file, so it
/// is made in a thread that may open none. Where that cannot be arranged it has read it, and all else is the same.
pub fn loader() -> Result<EbpfLoader<'static>> {
    let make = || {
        let _ = open_nothing();
        EbpfLoader::new()
    };
    let made = thread::scope(|scope| scope.spawn(make).join());
    made.map_err(|_| anyhow!("the thread that makes the loader died"))
}

/// From now on this thread opens no file.
fn open_nothing() -> Result<(), io::Error> {
    let step = |code: u32, jump_if_not, with: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_if_not,
        k: with,
    };
    let mut filter = [
        // `seccomp_data.nr`
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_openat as u32),
        step(
            libc::BPF_RET | libc::BPF_K,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EACCES as u32,
        ),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: both concern this thread only, and the kernel copies the filter.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::{bytes, loader, open_nothing, with};
    use crate::kernel::btf::{self, Names};

    #[test]
    fn types_have_their_numbers() {
        let functions = || [(7, "tcp_connect"), (2, "bpf_iter_tcp")].into_iter();
        let typedefs = || [(3, "btf_trace_tcp_destroy_sock")].into_iter();
        let names = Names {
            structs: vec![""],
            functions: vec!["tcp_connect", "bpf_iter_tcp", "gone"],
            typedefs: vec!["btf_trace_tcp_destroy_sock", "tcp_connect"],
        };
        let data = bytes(functions(), typedefs()).expect("it is small");
        assert_eq!(data.len(), 24 + 7 * 12 + 1 + 12 + 13 + 27);
        let btf = btf::Btf::parse(data, &names).expect("it parses");
        assert_eq!(btf.function("tcp_connect"), Some(7));
        assert_eq!(btf.function("bpf_iter_tcp"), Some(2));
        assert_eq!(btf.typedef("btf_trace_tcp_destroy_sock"), Some(3));
        assert_eq!((btf.function("gone"), btf.typedef("tcp_connect")), (None, None));
        assert!(with(functions(), typedefs()).is_ok(), "aya parses it too");
        assert!(with([(0, "void")].into_iter(), typedefs()).is_err());
    }

    #[test]
    fn only_the_thread_that_makes_the_loader_opens_nothing() {
        let there = "/proc/self/stat";
        let opened = thread::spawn(move || {
            open_nothing().expect("this kernel has seccomp");
            fs::File::open(there).map(drop)
        });
        assert!(opened.join().expect("it ends").is_err());
        loader().expect("a loader");
        assert!(fs::File::open(there).is_ok());
    }
}
