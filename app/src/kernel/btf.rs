//! A reader for the kernel's BTF: where fields are, and what functions take.
//!
//! aya parses BTF too, and keeps it to itself; the one other crate is LGPL. The format is
//! `Documentation/bpf/btf.rst` of the kernel.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result, bail, ensure};

const MAGIC: u16 = 0xeb9f;

const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// A field as BTF has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the start of the structure.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// For one that is not at a byte, or not of whole bytes: where in its byte it begins, and how wide it is.
    pub bits: Option<(u32, u32)>,
}

/// Names to look for.
#[derive(Clone, Debug, Default)]
pub struct Names<'a> {
    /// Of structures, unions and enumerations.
    pub structs: Vec<&'a str>,
    /// Of functions.
    pub functions: Vec<&'a str>,
    /// Of typedefs.
    pub typedefs: Vec<&'a str>,
}

/// Parsed BTF, with an index of the names that were asked for.
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Where the description of type `i + 1` starts.
    types: Vec<u32>,
    structs: HashMap<String, u32>,
    functions: HashMap<String, u32>,
    typedefs: HashMap<String, u32>,
}

/// A set of names that says no fast: a kernel has 100,000, of which some hundred are wanted.
struct Set<'a>(Vec<Vec<&'a str>>);

impl<'a> Set<'a> {
    /// A power of two.
    const BUCKETS: usize = 1024;

    fn of(names: &[&'a str]) -> Self {
        let mut buckets = vec![Vec::new(); Self::BUCKETS];
        for name in names {
            if let Some(bucket) = buckets.get_mut(Self::bucket(name.as_bytes())) {
                bucket.push(*name);
            }
        }
        Self(buckets)
    }

    /// By the first four bytes of a name that ends with a zero, or here.
    fn bucket(name: &[u8]) -> usize {
        let mut first = 0_u32;
        for byte in name.iter().take(4).take_while(|byte| **byte != 0) {
            first = first << 8 | u32::from(*byte);
        }
        (first.wrapping_mul(0x9e37_79b1) >> 16) as usize % Self::BUCKETS
    }

    /// The name that these strings begin with.
    fn find(&self, strings: &[u8]) -> Option<&'a str> {
        let bucket = self.0.get(Self::bucket(strings))?;
        let is_it = |name: &&&str| strings.get(name.len()) == Some(&0) && strings.starts_with(name.as_bytes());
        bucket.iter().find(is_it).copied()
    }
}

struct Type {
    kind: u32,
    vlen: u32,
    flag: bool,
    /// Size in bytes, or the number of another type.
    size_or_type: u32,
    /// Where the details start.
    details: usize,
}

impl Btf {
    /// Parses BTF and indexes these names: an index of everything costs 20 times as much.
    pub fn parse(data: Vec<u8>, names: &Names<'_>) -> Result<Self> {
        let header = data.get(..24).context("BTF is shorter than its header")?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        ensure!(
            u16::from_le_bytes([header[0], header[1]]) == MAGIC,
            "not BTF of this machine's byte order"
        );
        let start = word(4);
        let (first, len) = (start + word(8), word(12));
        let (strings, strings_len) = (start + word(16), word(20));
        ensure!(
            first + len <= data.len() && strings + strings_len <= data.len(),
            "BTF is shorter than its header says"
        );
        let mut btf = Self {
            data,
            strings,
            types: Vec::with_capacity(len / 24),
            structs: HashMap::new(),
            functions: HashMap::new(),
            typedefs: HashMap::new(),
        };
        let [structs, functions, typedefs] = [&names.structs, &names.functions, &names.typedefs].map(|of| Set::of(of));
        let mut at = first;
        while at < first + len {
            btf.types.push(u32::try_from(at)?);
            let ty = btf.describe(at)?;
            match ty.kind {
                STRUCT | UNION | ENUM => {
                    let name = btf.wanted(at, &structs)?;
                    note(&mut btf.structs, name, btf.types.len())?;
                }
                FUNC => {
                    let name = btf.wanted(at, &functions)?;
                    note(&mut btf.functions, name, btf.types.len())?;
                }
                TYPEDEF => {
                    let name = btf.wanted(at, &typedefs)?;
                    note(&mut btf.typedefs, name, btf.types.len())?;
                }
                _ => {}
            }
            at = ty.details + details_len(ty.kind, ty.vlen as usize)?;
        }
        ensure!(at == first + len, "BTF ends in the middle of a type");
        Ok(btf)
    }

    /// The name of a type, if it is in the set.
    fn wanted<'a>(&self, at: usize, wanted: &Set<'a>) -> Result<Option<&'a str>> {
        let strings = self.data.get(self.strings + self.word(at)? as usize..);
        Ok(wanted.find(strings.context("BTF names a string that it does not have")?))
    }

    /// The number of a function, if it was looked for and is there.
    pub fn function(&self, name: &str) -> Option<u32> {
        self.functions.get(name).copied()
    }

    /// The number of a typedef, if it was looked for and is there.
    pub fn typedef(&self, name: &str) -> Option<u32> {
        self.typedefs.get(name).copied()
    }

    /// The field at a dotted path, through anonymous members; `None` where this kernel has none.
    pub fn field(&self, of: &str, path: &str) -> Result<Option<Field>> {
        let Some(&number) = self.structs.get(of) else {
            return Ok(None);
        };
        let mut number = number;
        let mut found = Field {
            offset: 0,
            size: 0,
            bits: None,
        };
        for name in path.split('.') {
            let Some((bits, ty, width)) = self.member(number, name)? else {
                return Ok(None);
            };
            let size = self.size(ty)?;
            found = Field {
                offset: found.offset + bits / 8,
                size,
                bits: (bits % 8 != 0 || (width != 0 && width != size * 8)).then_some((bits % 8, width)),
            };
            number = ty;
        }
        Ok(Some(found))
    }

    /// A member's offset in bits, its type and, if it is a bit field, its width.
    fn member(&self, number: u32, name: &str) -> Result<Option<(u32, u32, u32)>> {
        let ty = self.plain(number)?;
        if ty.kind != STRUCT && ty.kind != UNION {
            return Ok(None);
        }
        for i in 0..ty.vlen as usize {
            let at = ty.details + i * 12;
            let raw = self.word(at + 8)?;
            let (bits, width) = if ty.flag {
                (raw & 0xff_ffff, raw >> 24)
            } else {
                (raw, 0)
            };
            let member = self.word(at + 4)?;
            let its_name = self.string(self.word(at)?)?;
            if its_name == name {
                return Ok(Some((bits, member, width)));
            }
            if its_name.is_empty()
                && let Some((inner, ty, width)) = self.member(member, name)?
            {
                return Ok(Some((bits + inner, ty, width)));
            }
        }
        Ok(None)
    }

    /// The names of a function's parameters; `None` where this kernel has no such function.
    pub fn parameters(&self, function: &str) -> Result<Option<Vec<String>>> {
        let Some(&number) = self.functions.get(function) else {
            return Ok(None);
        };
        let proto = self.ty(self.ty(number)?.size_or_type)?;
        ensure!(proto.kind == FUNC_PROTO, "{function} has no prototype in BTF");
        (0..proto.vlen as usize)
            .map(|i| Ok(self.string(self.word(proto.details + i * 8)?)?.to_owned()))
            .collect::<Result<_>>()
            .map(Some)
    }

    /// The numbers of an enumeration with their names, less what all of them begin with; none where this kernel has none.
    pub fn enumerators(&self, of: &str, prefix: &str) -> Result<BTreeMap<u32, String>> {
        let Some(&number) = self.structs.get(of) else {
            return Ok(BTreeMap::new());
        };
        let ty = self.ty(number)?;
        (0..ty.vlen as usize)
            .map(|i| {
                let at = ty.details + i * 8;
                let name = self.string(self.word(at)?)?;
                let short = name.strip_prefix(prefix).unwrap_or(name);
                Ok((self.word(at + 4)?, short.to_owned()))
            })
            .collect()
    }

    fn size(&self, number: u32) -> Result<u32> {
        let ty = self.plain(number)?;
        Ok(match ty.kind {
            INT | STRUCT | UNION | ENUM | ENUM64 => ty.size_or_type,
            ARRAY => self.size(self.word(ty.details)?)? * self.word(ty.details + 8)?,
            _ => 8,
        })
    }

    /// The type behind typedefs and qualifiers.
    fn plain(&self, number: u32) -> Result<Type> {
        let mut ty = self.ty(number)?;
        while matches!(ty.kind, TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG) {
            ty = self.ty(ty.size_or_type)?;
        }
        Ok(ty)
    }

    fn ty(&self, number: u32) -> Result<Type> {
        let at = (number as usize)
            .checked_sub(1)
            .and_then(|i| self.types.get(i))
            .context("BTF names a type that it does not have")?;
        self.describe(*at as usize)
    }

    fn describe(&self, at: usize) -> Result<Type> {
        let info = self.word(at + 4)?;
        Ok(Type {
            kind: (info >> 24) & 0x1f,
            vlen: info & 0xffff,
            flag: info >> 31 != 0,
            size_or_type: self.word(at + 8)?,
            details: at + 12,
        })
    }

    fn word(&self, at: usize) -> Result<u32> {
        match self.data.get(at..at + 4) {
            Some(bytes) => Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
            None => bail!("BTF ends in the middle of a type"),
        }
    }

    fn string(&self, offset: u32) -> Result<&str> {
        let Some(rest) = self.data.get(self.strings + offset as usize..) else {
            bail!("BTF names a string that it does not have");
        };
        let Some(end) = rest.iter().position(|byte| *byte == 0) else {
            bail!("BTF ends in the middle of a string");
        };
        std::str::from_utf8(&rest[..end]).context("BTF has a name that is not UTF-8")
    }
}

/// Of several types of one name the first counts.
fn note(index: &mut HashMap<String, u32>, name: Option<&str>, number: usize) -> Result<()> {
    if let Some(name) = name
        && !index.contains_key(name)
    {
        index.insert(name.to_owned(), u32::try_from(number)?);
    }
    Ok(())
}

fn details_len(kind: u32, vlen: usize) -> Result<usize> {
    Ok(match kind {
        INT | VAR | DECL_TAG => 4,
        ARRAY => 12,
        STRUCT | UNION | DATASEC | ENUM64 => vlen * 12,
        ENUM | FUNC_PROTO => vlen * 8,
        // Pointers, forward declarations, qualifiers, typedefs, functions, floats, tags.
        2 | 7 | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | 16 | TYPE_TAG => 0,
        other => bail!("BTF has a type of kind {other}, which socklife does not know"),
    })
}

#[cfg(test)]
mod tests {
    use super::{Btf, Field, Names};

    /// Builds BTF by hand: strings, then types.
    #[derive(Default)]
    struct Builder {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Builder {
        fn name(&mut self, name: &str) -> u32 {
            if self.strings.is_empty() {
                self.strings.push(0);
            }
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(name.as_bytes());
            self.strings.push(0);
            at
        }

        fn ty(&mut self, name: &str, kind: u32, vlen: u32, flag: bool, size_or_type: u32, details: &[u32]) {
            let name = self.name(name);
            for word in [name, kind << 24 | vlen | u32::from(flag) << 31, size_or_type]
                .iter()
                .chain(details)
            {
                self.types.extend(word.to_le_bytes());
            }
        }

        fn build(self) -> Vec<u8> {
            let mut data = vec![0x9f, 0xeb, 1, 0];
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            for word in [24, 0, types, types, strings] {
                data.extend(u32::to_le_bytes(word));
            }
            data.extend(self.types);
            data.extend(self.strings);
            data
        }
    }

    fn sample() -> Btf {
        let mut b = Builder::default();
        b.ty("int", 1, 0, false, 4, &[32]); // 1
        b.ty("u64", 1, 0, false, 8, &[64]); // 2
        b.ty("", 3, 0, false, 0, &[1, 1, 4]); // 3: int[4]
        let (a, c) = (b.name("a"), b.name("c"));
        b.ty("", 5, 2, false, 16, &[a, 1, 0, c, 3, 0]); // 4: anonymous union { int a; int c[4]; }
        let (head, flag, low) = (b.name("head"), b.name("flag"), b.name("low"));
        let bits = [flag, 1, 1 << 24 | 193, low, 1, 2 << 24 | 200];
        b.ty("inner", 4, 4, true, 32, &[&[head, 2, 0, 0, 4, 64], &bits[..]].concat()); // 5
        let within = b.name("within");
        b.ty("alias", 8, 0, false, 5, &[]); // 6: typedef struct inner alias
        b.ty("outer", 4, 1, false, 40, &[within, 6, 64]); // 7
        let (sk, ret) = (b.name("sk"), b.name("uaddr"));
        b.ty("", 13, 2, false, 1, &[sk, 2, ret, 2]); // 8: int (*)(sk, uaddr)
        b.ty("connect", 12, 0, false, 8, &[]); // 9
        let names = Names {
            structs: vec!["inner", "outer", "gone", "int"],
            functions: vec!["connect", "gone", "in"],
            typedefs: vec!["alias", "inner"],
        };
        Btf::parse(b.build(), &names).expect("it parses")
    }

    #[test]
    fn fields_are_found_through_typedefs_and_anonymous_members() {
        let btf = sample();
        let field = |of, path| btf.field(of, path).expect("it reads");
        let at = |offset, size| {
            Some(Field {
                offset,
                size,
                bits: None,
            })
        };
        assert_eq!(field("inner", "head"), at(0, 8));
        assert_eq!(field("inner", "a"), at(8, 4));
        assert_eq!(field("inner", "c"), at(8, 16));
        assert_eq!(field("outer", "within.c"), at(16, 16));
        assert_eq!(field("inner", "nothing"), None);
        assert_eq!(field("gone", "head"), None);
        assert!(field("inner", "flag").is_some_and(|field| field.bits.is_some_and(|(shift, _)| shift != 0)));
        assert!(
            field("inner", "low")
                .is_some_and(|field| field.bits.is_some_and(|(shift, _)| shift == 0) && field.offset == 25)
        );
    }

    #[test]
    fn parameters_come_by_name() {
        let btf = sample();
        let names = btf.parameters("connect").expect("it reads").expect("it is there");
        assert_eq!(names, ["sk", "uaddr"]);
        assert!(btf.parameters("gone").expect("it reads").is_none());
        assert_eq!((btf.function("connect"), btf.function("gone")), (Some(9), None));
        assert_eq!((btf.typedef("alias"), btf.typedef("inner")), (Some(6), None));
    }

    #[test]
    fn damaged_btf_is_an_error() {
        let parse = |data| Btf::parse(data, &Names::default());
        assert!(parse(vec![0; 10]).is_err());
        assert!(parse(vec![0; 100]).is_err());
        let mut short = Builder::default();
        short.ty("x", 4, 9, false, 4, &[]);
        assert!(parse(short.build()).is_err());
    }
}
