//! Stripping the eBPF object to what a loader reads.

use anyhow::{Context as _, Result};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

/// Sections that no loader reads: DWARF, its relocations, and those of BTF, whose offsets need none.
const USELESS: &[&[u8]] = &[b".debug", b".rel.debug", b".rel.BTF", b".llvm_addrsig"];

/// Removes debug sections; BTF and the symbols stay.
pub fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object).context("bpf-linker's output is no ELF file")?;
    let mut has_section_names = false;
    for section in &mut elf.sections {
        section.delete = USELESS.iter().any(|prefix| section.name.starts_with(prefix));
        has_section_names |= matches!(section.data, SectionData::SectionString);
    }
    // LLVM keeps the names of sections and symbols in one table, `object` writes two.
    if !has_section_names {
        let section = elf.sections.add();
        section.name = b".shstrtab".as_slice().into();
        section.sh_type = elf::SHT_STRTAB;
        section.sh_addralign = 1;
        section.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    elf.write(&mut stripped).context("cannot write the stripped object")?;
    Ok(stripped)
}
