//! The main program in memory: what a parent proves before it sends a child to an address.
//!
//! The same file is laid out the same way in each process that executes it, apart from its base. So an address
//! travels as an offset from the base, and both sides check that it lies in an executable segment; the
//! fingerprint tells one build from another. See dl_iterate_phdr(3), elf(5), getauxval(3).
#![allow(unsafe_code)]

use std::ffi::{CString, c_int, c_void};
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::slice;
use std::sync::OnceLock;

const NT_GNU_BUILD_ID: u32 = 3;

/// The main program's segments in this process.
#[derive(Debug)]
pub struct Image {
    base: usize,
    exec: Vec<Range<usize>>,
    all: Vec<Range<usize>>,
    has_interpreter: bool,
    fingerprint: u64,
}

/// The main program of this process.
pub fn main_program() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let (base, headers) = first_object();
        Image::read(base, headers)
    })
}

impl Image {
    fn read(base: usize, headers: &[libc::Elf64_Phdr]) -> Image {
        let range = |h: &libc::Elf64_Phdr| {
            let start = base.wrapping_add(h.p_vaddr as usize);
            start..start.saturating_add(h.p_memsz as usize)
        };
        let loaded = || headers.iter().filter(|h| h.p_type == libc::PT_LOAD);
        let mut hash = Fnv::new();
        for h in headers {
            hash.number(u64::from(h.p_type));
            hash.number(u64::from(h.p_flags));
            hash.number(h.p_vaddr);
            hash.number(h.p_filesz);
            hash.number(h.p_memsz);
        }
        let all: Vec<_> = loaded().map(range).collect();
        for h in headers.iter().filter(|h| h.p_type == libc::PT_NOTE) {
            let note = range(h);
            if !all.iter().any(|r| r.start <= note.start && note.end <= r.end) {
                continue;
            }
            // SAFETY: the segment lies inside a loaded one, which the main program keeps mapped and unchanged.
            let bytes = unsafe { slice::from_raw_parts(note.start as *const u8, note.len()) };
            if let Some(id) = build_id(bytes, if h.p_align == 8 { 8 } else { 4 }) {
                hash.bytes(id);
            }
        }
        Image {
            base,
            exec: loaded().filter(|h| h.p_flags & libc::PF_X != 0).map(range).collect(),
            all,
            has_interpreter: headers.iter().any(|h| h.p_type == libc::PT_INTERP),
            fingerprint: hash.0,
        }
    }

    /// The difference between addresses here and those in the file; 0 for a program at a fixed address.
    pub fn base(&self) -> usize {
        self.base
    }

    /// A number that tells builds apart: of all program headers and the GNU build id, if there is one.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether `addr` lies in an executable segment.
    pub fn contains_code(&self, addr: usize) -> bool {
        self.exec.iter().any(|r| r.contains(&addr))
    }

    /// Whether `addr` lies in any segment.
    pub fn contains(&self, addr: usize) -> bool {
        self.all.iter().any(|r| r.contains(&addr))
    }

    /// The offset of code from the base; `None` if `addr` is not in an executable segment.
    pub fn offset_of(&self, addr: usize) -> Option<usize> {
        self.contains_code(addr).then(|| addr.wrapping_sub(self.base))
    }

    /// The address of the code at `offset`; `None` if that is not in an executable segment.
    pub fn address_of(&self, offset: usize) -> Option<usize> {
        let addr = self.base.wrapping_add(offset);
        self.contains_code(addr).then_some(addr)
    }

    /// Whether /proc/self/exe is this program. It is the dynamic loader when that was started by name
    /// (`ld.so ./prog`), and executing it again would not start the program.
    pub fn is_executable_itself(&self) -> bool {
        // AT_BASE is where the kernel loaded an interpreter, which a loader started by name does not have.
        !self.has_interpreter || auxiliary(libc::AT_BASE) != 0
    }
}

/// Whether this program runs with more rights than its user (set-uid, set-gid, file capabilities), so that the
/// environment cannot be trusted (AT_SECURE).
pub fn is_secure() -> bool {
    auxiliary(libc::AT_SECURE) != 0
}

fn auxiliary(kind: u64) -> u64 {
    // SAFETY: getauxval takes any number.
    unsafe { libc::getauxval(kind) }
}

/// The name by which this program was called; empty if it was called with no arguments at all.
pub fn argv0() -> CString {
    std::env::args_os().next().and_then(|arg| CString::new(arg.into_vec()).ok()).unwrap_or_default()
}

/// Base and program headers of the main program; nothing if libc does not tell.
fn first_object() -> (usize, &'static [libc::Elf64_Phdr]) {
    let mut found: (usize, &'static [libc::Elf64_Phdr]) = (0, &[]);
    // SAFETY: `take_first` has the type that dl_iterate_phdr calls, and gets the pointer to `found`.
    unsafe { libc::dl_iterate_phdr(Some(take_first), (&raw mut found).cast()) };
    found
}

/// Stops at the first object, which is the main program.
unsafe extern "C" fn take_first(info: *mut libc::dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
    // SAFETY: libc passes a valid record for the length of this call.
    let info = unsafe { &*info };
    if !info.dlpi_phdr.is_null() {
        // SAFETY: libc gives that many headers, and those of the main program stay for ever.
        let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        let found = found.cast::<(usize, &'static [libc::Elf64_Phdr])>();
        // SAFETY: `first_object` passes this pointer and does not touch its target during the call.
        unsafe { found.write((info.dlpi_addr as usize, headers)) };
    }
    1
}

/// The GNU build id among the notes of a segment: each is three words (name size, content size, type), name,
/// content, with both padded.
fn build_id(mut notes: &[u8], align: usize) -> Option<&[u8]> {
    loop {
        let (header, rest) = notes.split_first_chunk::<12>()?;
        let word = |i: usize| u32::from_ne_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
        let (name_size, size, kind) = (word(0) as usize, word(4) as usize, word(8));
        let name = rest.get(..name_size)?;
        // Offsets count from the note's header.
        let start = (12 + name_size).next_multiple_of(align) - 12;
        let content = rest.get(start..start.checked_add(size)?)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return Some(content);
        }
        let end = (12 + start + size).next_multiple_of(align) - 12;
        notes = rest.get(end..)?;
    }
}

/// FNV-1a with 64 bits (Fowler, Noll, Vo): the same in all processes, unlike std's hasher.
struct Fnv(u64);

impl Fnv {
    const fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static DATA: u8 = 1;

    #[test]
    fn own_code_is_found() {
        let image = main_program();
        let code = is_secure as *const () as usize;
        let offset = image.offset_of(code).unwrap();
        assert_eq!(image.address_of(offset), Some(code));
        assert!(image.contains(code));
        assert_ne!(image.fingerprint(), Fnv::new().0);
    }

    #[test]
    fn data_heap_and_libraries_are_not_code() {
        let image = main_program();
        let data = &raw const DATA as usize;
        assert!(image.contains(data) && !image.contains_code(data));
        let heap = Box::new(0u8);
        assert!(!image.contains(&raw const *heap as usize));
        assert_eq!(image.address_of(usize::MAX), None);
        assert_eq!(image.offset_of(0), None);
    }

    #[test]
    fn this_process_is_ordinary() {
        assert!(!is_secure());
        assert!(main_program().is_executable_itself());
        assert!(argv0().to_str().unwrap().contains(env!("CARGO_CRATE_NAME")));
    }

    #[test]
    fn build_id_is_found_behind_another_note() {
        let mut notes = Vec::new();
        for (kind, content) in [(1u32, &b"abcde"[..]), (3, b"id")] {
            notes.extend([4u32.to_ne_bytes(), (content.len() as u32).to_ne_bytes(), kind.to_ne_bytes()].concat());
            notes.extend(b"GNU\0");
            notes.extend(content);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(build_id(&notes, 4), Some(&b"id"[..]));
        assert_eq!(build_id(&notes[..40], 4), None);
        assert_eq!(build_id(&[0xff; 64], 4), None);
    }

    #[test]
    fn hash_is_fnv() {
        let mut hash = Fnv::new();
        hash.bytes(b"foobar");
        assert_eq!(hash.0, 0x8594_4171_f739_67e8);
    }
}
