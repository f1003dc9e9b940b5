//! The program's first instructions: `create`, `run` and `exec` move to a sealed copy before the C library starts.
//!
//! A process that enters a container must not be backed by a file of the host (CVE-2019-5736; see
//! `locule_runtime::process::seal`, whose work this anticipates). Doing it here saves one of two starts
//! of the C library, which asks the processor about itself in some sixty CPUID instructions: each traps
//! in a virtual machine (1 to 13 µs), which makes a start the dearest part of a short call.
//!
//! Nothing is set up yet: no relocations, no thread-local storage, no libc. The code below therefore uses
//! neither absolute addresses nor functions of others, and copies bytes by volatile writes so that no
//! call of memcpy is made of them. Whatever fails, it returns, and `seal::ensure` does it the usual way.

#![allow(unsafe_code, reason = "runs before anything safe exists")]

use core::arch::{asm, naked_asm};
use core::mem::MaybeUninit;
use core::ptr;

/// The ELF entry point (named by `build.rs`): seals if the words ask for it, then starts the C library.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn locule_entry() -> ! {
    // rdx (a destructor for `_start`) and rsp (argc, argv, environment) must reach `_start` unchanged.
    naked_asm!(
        "push rdx",
        "sub rsp, 8",
        "lea rdi, [rsp + 16]",
        "call {seal}",
        "lea rdi, [rip + __ehdr_start]",
        "call {populate}",
        "add rsp, 8",
        "pop rdx",
        "jmp _start",
        seal = sym seal,
        populate = sym populate,
    )
}

const MARK: &[u8] = b"_LOCULE_SEALED=";
/// As `seal::FIRST_FREE`: out of the way of descriptors that a caller hands over.
const FIRST_FREE: usize = 400;
/// Environments above this are left to `seal::ensure`.
const MOST_VARIABLES: usize = 1000;
const LONGEST_PATH: usize = 4096;

/// A system call; the result is negative on failure.
#[inline(always)]
unsafe fn call(number: libc::c_long, args: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the kernel preserves all registers but rax, rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("r10") args[3], in("r8") args[4],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Whether the C string at `text` begins with `start`, and with `whole` also ends there.
#[inline(always)]
unsafe fn matches(text: *const u8, start: &[u8], whole: bool) -> bool {
    let mut at = 0;
    while at < start.len() {
        // SAFETY: stops at the first difference, so never beyond the terminating zero.
        if unsafe { ptr::read_volatile(text.add(at)) } != start[at] {
            return false;
        }
        at += 1;
    }
    // SAFETY: all of `start` was there, so this is at most the terminating zero.
    !whole || unsafe { ptr::read_volatile(text.add(at)) } == 0
}

/// A text built in place, on the stack.
struct Text<'a> {
    start: *mut u8,
    length: usize,
    capacity: usize,
    _buffer: core::marker::PhantomData<&'a mut ()>,
}

impl<'a> Text<'a> {
    #[inline(always)]
    fn new<const N: usize>(buffer: &'a mut MaybeUninit<[u8; N]>) -> Text<'a> {
        Text { start: buffer.as_mut_ptr().cast(), length: 0, capacity: N, _buffer: core::marker::PhantomData }
    }

    #[inline(always)]
    fn push(&mut self, byte: u8) {
        if self.length < self.capacity {
            // SAFETY: within the buffer.
            unsafe { ptr::write_volatile(self.start.add(self.length), byte) };
            self.length += 1;
        }
    }

    #[inline(always)]
    fn append(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            self.push(bytes[at]);
            at += 1;
        }
    }

    #[inline(always)]
    fn append_number(&mut self, number: usize) {
        let mut unit = 1;
        while number / unit >= 10 {
            unit *= 10;
        }
        while unit > 0 {
            self.push(b'0' + (number / unit % 10) as u8);
            unit /= 10;
        }
    }
}

/// Brings in, by one call, the pages that the C library is about to write while it relocates the program.
///
/// A static-pie program applies every relocation at every start, and each page of that data would be a fault
/// of its own. An older kernel than 5.14 refuses, and nothing is lost.
unsafe extern "C" fn populate(header: *const u8) {
    const MADV_POPULATE_WRITE: usize = 23;
    const PAGE: usize = 4096;
    // SAFETY: the linker puts the ELF header and the program headers at the start of the first segment, and
    // the segment of PT_GNU_RELRO is mapped, private and still writable.
    unsafe {
        let elf = &*(header as *const libc::Elf64_Ehdr);
        let mut at = 0;
        while at < elf.e_phnum {
            let segment = header.add(elf.e_phoff as usize + usize::from(at) * usize::from(elf.e_phentsize));
            let segment = &*(segment as *const libc::Elf64_Phdr);
            if segment.p_type == libc::PT_GNU_RELRO {
                let first = (header as usize + segment.p_vaddr as usize) & !(PAGE - 1);
                let end = header as usize + (segment.p_vaddr + segment.p_memsz) as usize;
                call(libc::SYS_madvise, [first, (end - first) & !(PAGE - 1), MADV_POPULATE_WRITE, 0, 0]);
                return;
            }
            at += 1;
        }
    }
}

/// Executes a sealed copy of this program if `stack` (argc, argv, environment) asks for a verb that
/// enters a container; returns if it does not, or if anything is in the way.
///
/// SAFETY: `stack` is what the kernel gave the entry in rsp, and nobody has written above it since.
unsafe extern "C" fn seal(stack: *const usize) {
    // SAFETY: argc, argv, NULL, environment, NULL lie there (System V ABI, process initialization), and all reads
    // stay between them; system calls get live buffers and NUL-terminated strings of this frame.
    unsafe {
        let argc = *stack;
        let argv = stack.add(1);
        let mut enters = false;
        let mut at = 1;
        while at < argc {
            let word = *argv.add(at) as *const u8;
            // A container called `run` costs its other verbs this step too, and nothing else.
            enters |=
                matches(word, b"create", true) || matches(word, b"run", true) || matches(word, b"exec", true);
            at += 1;
        }
        if !enters {
            return;
        }
        let environment = argv.add(argc + 1);
        let mut variables = 0;
        while *environment.add(variables) != 0 {
            if variables == MOST_VARIABLES || matches(*environment.add(variables) as *const u8, MARK, false) {
                return;
            }
            variables += 1;
        }

        let mut own = MaybeUninit::<[u8; LONGEST_PATH]>::uninit();
        let path: *mut u8 = own.as_mut_ptr().cast();
        let exe = c"/proc/self/exe".as_ptr() as usize;
        let length = call(libc::SYS_readlink, [exe, path as usize, LONGEST_PATH - 1, 0, 0]);
        if length < 2 || length as usize >= LONGEST_PATH - 1 {
            return;
        }
        ptr::write_volatile(path.add(length as usize), 0);
        let mut slash = length as usize;
        while slash > 0 && ptr::read_volatile(path.add(slash)) != b'/' {
            slash -= 1;
        }
        let name = path.add(slash + 1);
        let at_cwd = libc::AT_FDCWD as usize;
        let place = (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as usize;
        let directory = if slash == 0 {
            call(libc::SYS_openat, [at_cwd, c"/".as_ptr() as usize, place, 0, 0])
        } else {
            ptr::write_volatile(path.add(slash), 0);
            call(libc::SYS_openat, [at_cwd, path as usize, place, 0, 0])
        };
        let other = call(libc::SYS_openat, [at_cwd, c"/dev".as_ptr() as usize, place, 0, 0]);
        let context = call(libc::SYS_fsopen, [c"overlay".as_ptr() as usize, 1, 0, 0, 0]);
        if directory < 0 || other < 0 || context < 0 {
            return close_all([directory, other, context, -1]);
        }
        let mut buffer = MaybeUninit::<[u8; 80]>::uninit();
        let mut layers = Text::new(&mut buffer);
        layers.append(b"/proc/self/fd/");
        layers.append_number(directory as usize);
        layers.append(b":/proc/self/fd/");
        layers.append_number(other as usize);
        layers.push(0);
        let key = c"lowerdir".as_ptr() as usize;
        call(libc::SYS_fsconfig, [context as usize, 1, key, layers.start as usize, 0]);
        call(libc::SYS_fsconfig, [context as usize, 6, 0, 0, 0]);
        // Read-only, without set-id bits and devices; close-on-exec, as a copy is what is kept.
        let mount = call(libc::SYS_fsmount, [context as usize, 1, 1 | 2 | 4, 0, 0]);
        if mount < 0 {
            return close_all([directory, other, context, -1]);
        }
        let file = (libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) as usize;
        let copy = call(libc::SYS_openat, [mount as usize, name as usize, file, 0, 0]);
        let kept = call(libc::SYS_fcntl, [mount as usize, libc::F_DUPFD as usize, FIRST_FREE, 0, 0]);
        if copy < 0 || kept < 0 {
            close_all([copy, kept, -1, -1]);
            return close_all([directory, other, context, mount]);
        }
        let mut buffer = MaybeUninit::<[u8; 32]>::uninit();
        let mut mark = Text::new(&mut buffer);
        mark.append(MARK);
        mark.append_number(kept as usize);
        mark.push(0);
        let mut list = MaybeUninit::<[usize; MOST_VARIABLES + 2]>::uninit();
        let marked: *mut usize = list.as_mut_ptr().cast();
        let mut at = 0;
        while at < variables {
            ptr::write_volatile(marked.add(at), *environment.add(at));
            at += 1;
        }
        ptr::write_volatile(marked.add(variables), mark.start as usize);
        ptr::write_volatile(marked.add(variables + 1), 0);
        let empty = c"".as_ptr() as usize;
        let flags = libc::AT_EMPTY_PATH as usize;
        call(libc::SYS_execveat, [copy as usize, empty, argv as usize, marked as usize, flags]);
        close_all([copy, kept, -1, -1]);
        close_all([directory, other, context, mount]);
    }
}

/// Closes what was opened, so that `seal::ensure` starts from the same descriptors.
#[inline(always)]
unsafe fn close_all(fds: [isize; 4]) {
    let mut at = 0;
    while at < fds.len() {
        if fds[at] >= 0 {
            // SAFETY: opened by `seal`, used by nobody else.
            unsafe { call(libc::SYS_close, [fds[at] as usize, 0, 0, 0, 0]) };
        }
        at += 1;
    }
}
