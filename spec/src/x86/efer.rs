//! IA32_EFER (SDM Vol. 3A, 2.2.1).

named_bits! {
    /// IA32_EFER, MSR C000_0080H.
    Efer(u64) {
        0 SCE "SYSCALL enable";
        8 LME "IA-32e mode enable";
        10 LMA "IA-32e mode active";
        11 NXE "execute-disable bit enable";
    }
}
