//! Programs of a few instructions: one system call, whose errno is the exit code.
//!
//! Owns their bytes. They show what a filter does to a call with exactly these arguments, by the
//! machine's own ABI or by the 32-bit one, without a compiler and without a C library.

/// An x86-64 program.
pub fn x86_64(number: u32, args: [u64; 3]) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend(number.to_le_bytes());
    // mov rdi, rsi, rdx
    for (opcode, arg) in [0xbf, 0xbe, 0xba].into_iter().zip(args) {
        code.extend([0x48, opcode]);
        code.extend(arg.to_le_bytes());
    }
    // syscall; mov edi, eax; neg edi; mov eax, 60; syscall
    code.extend([0x0f, 0x05, 0x89, 0xc7, 0xf7, 0xdf, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    const ENTRY: u64 = 0x40_0000 + 64 + 56;
    let length = 64 + 56 + code.len() as u64;
    let mut file = Vec::new();
    file.extend(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // Executable, x86-64.
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [ENTRY, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // One segment to load, readable and executable.
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, 0x40_0000, 0x40_0000, length, length, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

/// A 32-bit x86 program.
pub fn x86(number: u32, args: [u32; 3]) -> Vec<u8> {
    let mut code = Vec::new();
    // mov eax, ebx, ecx, edx
    for (opcode, value) in [0xb8, 0xbb, 0xb9, 0xba].into_iter().zip([number].into_iter().chain(args)) {
        code.push(opcode);
        code.extend(value.to_le_bytes());
    }
    // int 0x80; neg eax; mov ebx, eax; mov eax, 1; int 0x80
    code.extend([0xcd, 0x80, 0xf7, 0xd8, 0x89, 0xc3, 0xb8, 1, 0, 0, 0, 0xcd, 0x80]);
    const ENTRY: u32 = 0x40_0000 + 52 + 32;
    let length = 52 + 32 + code.len() as u32;
    let mut file = Vec::new();
    file.extend(*b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0");
    // Executable, i386.
    file.extend([2, 0, 3, 0, 1, 0, 0, 0]);
    for word in [ENTRY, 52, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    for word in [1, 0, 0x40_0000, 0x40_0000, length, length, 5, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}
