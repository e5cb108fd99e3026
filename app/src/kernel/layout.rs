//! What the programs must know of the running kernel, out of its BTF.

use anyhow::{Context as _, Result, ensure};
use socklife_abi::kernel::{ABSENT, ArgSpec, Args, FieldSpec, NO_ARG, Off, Offsets, Regs};

use super::{
    btf::{Btf, Field, Names},
    reasons::Reasons,
};

/// The implementation that tracing programs got in 5.12, with the helper itself.
const COOKIE_HELPER: &str = "bpf_get_socket_ptr_cookie";

/// Tracing programs got it in 5.15.
const FUNC_IP_HELPER: &str = "bpf_get_func_ip_tracing";

/// 5.17 and later.
const DROP_REASONS: &str = "skb_drop_reason";
/// Whose reasons have numbers of their own: 6.4 and later.
const SUBSYSTEMS: &str = "skb_drop_reason_subsys";
/// Those that may be built in, and what their names begin with: `qdisc_drop_reason` is from 7.1 on.
const SUBSYSTEM_REASONS: [&str; 3] = ["qdisc_drop_reason", "ovs_drop_reason", "mac80211_drop_reason"];
/// 6.10 and later.
const RESET_REASONS: &str = "sk_rst_reason";

/// The tables of [`socklife_abi::kernel`], as bytes of the globals.
pub struct Layout {
    /// [`Offsets`].
    pub offsets: Vec<u32>,
    /// [`Args`].
    pub args: Vec<u8>,
    /// [`Regs`].
    pub regs: Vec<u32>,
    /// Whether tracing programs may call `bpf_get_socket_cookie`.
    pub cookie_helper: bool,
    /// What is dropped for which reason; numbers change from build to build.
    pub reasons: Reasons,
    /// Whether fexit programs may call `bpf_get_func_ip`.
    pub func_ip_helper: bool,
}

impl Layout {
    /// What it is made of.
    pub fn names() -> Names<'static> {
        let mut structs: Vec<_> = Offsets::SPEC.iter().map(|spec| spec.of).collect();
        structs.extend(["pt_regs", DROP_REASONS, RESET_REASONS, SUBSYSTEMS]);
        structs.extend(SUBSYSTEM_REASONS);
        let mut functions: Vec<_> = Args::SPEC.iter().map(|spec| spec.function).collect();
        functions.extend([COOKIE_HELPER, FUNC_IP_HELPER]);
        structs.dedup();
        functions.dedup();
        Names {
            structs,
            functions,
            typedefs: Vec::new(),
        }
    }

    /// Out of BTF with these names.
    pub fn of(btf: &Btf) -> Result<Self> {
        Ok(Self {
            offsets: Offsets::SPEC
                .iter()
                .map(|spec| offset(btf, spec))
                .collect::<Result<_>>()?,
            args: Args::SPEC
                .iter()
                .map(|spec| position(btf, spec))
                .collect::<Result<_>>()?,
            regs: registers(btf)?,
            cookie_helper: btf.function(COOKIE_HELPER).is_some(),
            reasons: reasons(btf)?,
            func_ip_helper: btf.function(FUNC_IP_HELPER).is_some(),
        })
    }

    /// The parameters that a program needs of a function and this kernel's function lacks.
    pub fn missing_args(&self, function: &str) -> Vec<&'static str> {
        Args::SPEC
            .iter()
            .zip(&self.args)
            .filter(|(spec, position)| spec.function == function && **position == NO_ARG)
            .map(|(spec, _)| spec.parameter.unwrap_or("(the function itself)"))
            .collect()
    }
}

fn reasons(btf: &Btf) -> Result<Reasons> {
    let mut drops = btf.enumerators(DROP_REASONS, "SKB_DROP_REASON_")?;
    for reasons in SUBSYSTEM_REASONS {
        let named = btf.enumerators(reasons, "")?.into_iter();
        drops.extend(named.filter(|(_, name)| !name.starts_with("__")));
    }
    Ok(Reasons {
        drops,
        subsystems: btf.enumerators(SUBSYSTEMS, "SKB_DROP_REASON_SUBSYS_")?,
        resets: btf.enumerators(RESET_REASONS, "SK_RST_REASON_")?,
    })
}

const _: () = {
    assert!(size_of::<Offsets>() == Offsets::SPEC.len() * 4);
    assert!(size_of::<Args>() == Args::SPEC.len());
    assert!(size_of::<Regs>() == 10 * 4);
};

fn offset(btf: &Btf, spec: &FieldSpec) -> Result<u32> {
    let FieldSpec { of, path, size, .. } = spec;
    match btf.field(of, path)? {
        Some(field) => {
            if spec.bits {
                return bits(field).with_context(|| format!("{of}.{path} goes over the end of a byte in this kernel"));
            }
            ensure!(field.bits.is_none(), "{of}.{path} is a bit field in this kernel");
            // A wider field would be read by half, and an array of two words is read word by word.
            ensure!(
                field.size as usize >= *size,
                "{of}.{path} is narrower than {size} bytes in this kernel"
            );
            Ok(field.offset)
        }
        None if spec.optional => Ok(ABSENT),
        None => anyhow::bail!("this kernel has no {of}.{path}"),
    }
}

/// A field as [`Bits`](socklife_abi::kernel::Bits); `None` where one byte does not hold it.
fn bits(field: Field) -> Option<u32> {
    let (shift, width) = field.bits.unwrap_or((0, 8));
    let width = if shift == 0 { width.min(8) } else { width };
    (width > 0 && shift + width <= 8).then(|| Off::bits(field.offset, shift, width).bytes())
}

fn position(btf: &Btf, spec: &ArgSpec) -> Result<u8> {
    let Some(parameters) = btf.parameters(spec.function)? else {
        return Ok(NO_ARG);
    };
    let position = match spec.parameter {
        Some(name) => parameters.iter().position(|parameter| parameter == name),
        None => Some(parameters.len()),
    };
    Ok(position
        .and_then(|position| u8::try_from(position).ok())
        .unwrap_or(NO_ARG))
}

/// System V's calling convention, and the system call's.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [&str; 10] = ["di", "si", "dx", "cx", "r8", "r9", "ax", "sp", "orig_ax", "di"];

fn registers(btf: &Btf) -> Result<Vec<u32>> {
    REGISTERS
        .iter()
        .map(|name| {
            let field = btf.field("pt_regs", name)?;
            Ok(field
                .with_context(|| format!("this kernel has no pt_regs.{name}"))?
                .offset)
        })
        .collect()
}
