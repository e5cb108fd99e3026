//! How much stack each eBPF program may take, with all that it calls.
//!
//! The kernel allows 512 bytes for a whole chain of calls, each function counted in steps of 32 (`check_max_stack_depth`
//! of kernel/bpf/verifier.c). From 6.13 on tracing programs may have more, so a kernel at hand does not tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind, read::File};

/// MAX_BPF_STACK.
const LIMIT: i64 = 512;
/// What the verifier rounds each function up to.
const STEP: i64 = 32;
const INSTRUCTION: usize = 8;
/// Classes of instructions that write their first register.
const LOAD_64: u8 = 0;
const LOAD: u8 = 1;
const ALU_32: u8 = 4;
const ALU_64: u8 = 7;

/// Where a function is: its section, and its first instruction there.
type Place = (usize, usize);

#[derive(Debug, Default)]
struct Function {
    name: String,
    stack: i64,
    calls: BTreeSet<Place>,
}

/// Fails where a program and what it calls take more than the kernel allows.
pub fn check(object: &[u8]) -> Result<()> {
    let functions = read(object)?;
    ensure!(!functions.is_empty(), "the object has no functions");
    let mut deep = String::new();
    for place in functions.keys() {
        let (depth, chain) = deepest(&functions, *place, 0);
        if depth > LIMIT {
            let chain: Vec<String> = chain
                .iter()
                .map(|function| format!("{} ({})", function.name, function.stack))
                .collect();
            let _ = write!(deep, "\n  {depth}: {}", chain.join(" -> "));
        }
    }
    ensure!(
        deep.is_empty(),
        "programs take more stack than the {LIMIT} bytes that a kernel before 6.13 allows; make a function of what needs \
         it that returns before the next is called:{deep}"
    );
    Ok(())
}

fn deepest(functions: &BTreeMap<Place, Function>, place: Place, level: usize) -> (i64, Vec<&Function>) {
    // The kernel allows eight.
    let Some(function) = functions.get(&place).filter(|_| level < 8) else {
        return (0, Vec::new());
    };
    let own = (function.stack.max(1) + STEP - 1) / STEP * STEP;
    let below = function
        .calls
        .iter()
        .map(|callee| deepest(functions, *callee, level + 1));
    let (depth, mut chain) = below.max_by_key(|(depth, _)| *depth).unwrap_or_default();
    chain.insert(0, function);
    (own + depth, chain)
}

fn read(object: &[u8]) -> Result<BTreeMap<Place, Function>> {
    let elf = File::parse(object).context("the object is no ELF file")?;
    let mut functions = BTreeMap::new();
    for symbol in elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let Some(index) = symbol.section_index() else {
            continue;
        };
        let section = elf.section_by_index(index).context("a function has no section")?;
        let code = section.data().context("a section has no code")?;
        let begin = usize::try_from(symbol.address())?;
        let end = begin + usize::try_from(symbol.size())?;
        let code = code.get(begin..end).context("a function is longer than its section")?;
        let targets: BTreeMap<usize, Place> = section
            .relocations()
            .filter_map(|(offset, relocation)| {
                let RelocationTarget::Symbol(target) = relocation.target() else {
                    return None;
                };
                let target = elf.symbol_by_index(target).ok()?;
                let place = (target.section_index()?.0, usize::try_from(target.address()).ok()?);
                Some((usize::try_from(offset).ok()?, place))
            })
            .collect();
        let name = symbol.name().unwrap_or("?").to_owned();
        functions.insert((index.0, begin), decode(name, code, (index.0, begin), &targets));
    }
    Ok(functions)
}

/// Reads the instructions of a function (Documentation/bpf/standardization/instruction-set.rst).
fn decode(name: String, code: &[u8], (section, begin): Place, targets: &BTreeMap<usize, Place>) -> Function {
    let mut function = Function {
        name,
        ..Function::default()
    };
    // Whether a register holds the frame pointer, as it is.
    let mut frame = [false; 16];
    frame[10] = true;
    let mut instructions = code.chunks_exact(INSTRUCTION).enumerate();
    while let Some((index, instruction)) = instructions.next() {
        let (opcode, registers) = (instruction[0], instruction[1]);
        let (to, from) = (usize::from(registers & 15), usize::from(registers >> 4));
        let offset = i64::from(i16::from_le_bytes([instruction[2], instruction[3]]));
        let immediate = i32::from_le_bytes([instruction[4], instruction[5], instruction[6], instruction[7]]);
        let at = begin + index * INSTRUCTION;
        let mut deep = |offset: i64| function.stack = function.stack.max(-offset);
        match opcode {
            // Loads.
            0x61 | 0x69 | 0x71 | 0x79 | 0x81 | 0x89 | 0x91 if frame[from] => deep(offset),
            // Stores and atomics.
            0x62 | 0x6a | 0x72 | 0x7a | 0x63 | 0x6b | 0x73 | 0x7b | 0xc3 | 0xdb if frame[to] => deep(offset),
            // to += immediate.
            0x07 if frame[to] => deep(i64::from(immediate)),
            // A call of one of ours, relative to what follows it.
            0x85 if from == 1 => {
                let (section, base) = targets.get(&at).copied().unwrap_or((section, at));
                function.calls.insert((section, callee(base, immediate)));
            }
            // A function's address for a helper that calls it; data otherwise.
            0x18 => {
                if let Some((section, base)) = targets.get(&at) {
                    function.calls.insert((*section, base + immediate as usize));
                }
                instructions.next();
            }
            _ => {}
        }
        // What registers hold after this.
        match opcode {
            0xbf => frame[to] = frame[from],
            0x85 => frame[..6].fill(false),
            _ if matches!(opcode & 7, LOAD_64 | LOAD | ALU_32 | ALU_64) => frame[to] = false,
            _ => {}
        }
    }
    function
}

fn callee(base: usize, immediate: i32) -> usize {
    let relative = (i64::from(immediate) + 1) * INSTRUCTION as i64;
    usize::try_from(base as i64 + relative).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: usize = 1;

    fn function(code: &[[u8; 8]]) -> Function {
        decode("it".to_owned(), &code.concat(), (SECTION, 64), &BTreeMap::new())
    }

    #[test]
    fn the_lowest_byte_counts_however_it_is_reached() {
        let store = function(&[[0x7b, 0x1a, 0xc0, 0xff, 0, 0, 0, 0]]);
        assert_eq!(store.stack, 64, "*(u64 *)(r10 - 64) = r1");
        let pointer = function(&[
            [0xbf, 0xa2, 0, 0, 0, 0, 0, 0],
            [0x07, 0x02, 0, 0, 0x68, 0xff, 0xff, 0xff],
            // r2 is another pointer now.
            [0x7b, 0x12, 0, 0xff, 0, 0, 0, 0],
        ]);
        assert_eq!(pointer.stack, 152, "r2 = r10; r2 += -152");
    }

    #[test]
    fn a_chain_of_calls_is_summed_in_steps() {
        let caller = function(&[
            [0x7b, 0x1a, 0xf8, 0xff, 0, 0, 0, 0],
            [0x85, 0x10, 0, 0, 6, 0, 0, 0],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ]);
        let callee = (SECTION, 64 + 8 + 7 * 8);
        assert_eq!(caller.calls, [callee].into());
        let below = Function {
            stack: 33,
            ..Function::default()
        };
        let functions = [((SECTION, 64), caller), (callee, below)].into();
        let (depth, chain) = deepest(&functions, (SECTION, 64), 0);
        assert_eq!((depth, chain.len()), (32 + 64, 2));
    }
}
