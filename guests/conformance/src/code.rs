//! The guests' instructions. Each ends in VMCALL.
#![allow(unsafe_code, reason = "machine code that runs in guests only")]

/// A guest's code. It is never called: its address goes to the guest's RIP.
pub type Code = unsafe extern "C" fn();

/// The address of a guest's code.
#[must_use]
pub fn address(code: Code) -> u64 {
    code as usize as u64
}

macro_rules! guest_code {
    ($($(#[$meta:meta])* $name:ident: $($line:literal),*;)*) => {
        $(
            $(#[$meta])*
            ///
            /// # Safety
            /// Is for a guest's RIP, not to be called.
            #[unsafe(naked)]
            pub unsafe extern "C" fn $name() {
                core::arch::naked_asm!($($line,)* "vmcall", "ud2")
            }
        )*
    };
}

guest_code! {
    /// Nothing.
    done:;
    /// NOP.
    nops: "nop", "nop", "nop";
    /// CPUID.
    cpuid: "cpuid";
    /// GETSEC.
    getsec: ".byte 0x0f, 0x37";
    /// HLT.
    hlt: "hlt";
    /// INVD.
    invd: "invd";
    /// INVLPG of [RDI].
    invlpg: "invlpg [rdi]";
    /// RDPMC.
    rdpmc: "rdpmc";
    /// RDTSC; RAX is all of it.
    rdtsc: "rdtsc", "shl rdx, 32", "or rax, rdx";
    /// RDTSCP.
    rdtscp: "rdtscp";
    /// RDPID to RAX.
    rdpid: ".byte 0xf3, 0x0f, 0xc7, 0xf8";
    /// VMCLEAR of [RDI + 8 * RCX + 0x40].
    vmclear: "vmclear [rdi + 8 * rcx + 0x40]";
    /// VMLAUNCH.
    vmlaunch: "vmlaunch";
    /// VMPTRLD of [RDI].
    vmptrld: "vmptrld [rdi]";
    /// VMPTRST of [RDI].
    vmptrst: "vmptrst [rdi]";
    /// VMREAD of field RCX to RAX.
    vmread: "vmread rax, rcx";
    /// VMREAD of field RCX to [RDI].
    vmread_memory: "vmread [rdi], rcx";
    /// VMRESUME.
    vmresume: "vmresume";
    /// VMWRITE of RAX to field RCX.
    vmwrite: "vmwrite rcx, rax";
    /// VMXOFF.
    vmxoff: "vmxoff";
    /// VMXON of [RDI].
    vmxon: "vmxon [rdi]";
    /// MOV CR0, RAX.
    mov_to_cr0: "mov cr0, rax";
    /// MOV RAX, CR0.
    mov_from_cr0: "mov rax, cr0";
    /// MOV CR3, RAX.
    mov_to_cr3: "mov cr3, rax";
    /// MOV RBX, CR3.
    mov_from_cr3: "mov rbx, cr3";
    /// MOV CR4, R9.
    mov_to_cr4: "mov cr4, r9";
    /// MOV RAX, CR4.
    mov_from_cr4: "mov rax, cr4";
    /// MOV CR8, RAX.
    mov_to_cr8: "mov cr8, rax";
    /// MOV RAX, CR8.
    mov_from_cr8: "mov rax, cr8";
    /// CLTS.
    clts: "clts";
    /// LMSW AX.
    lmsw: "lmsw ax";
    /// LMSW [RDI].
    lmsw_memory: "lmsw [rdi]";
    /// MOV DR7, RAX.
    mov_to_dr7: "mov dr7, rax";
    /// MOV RBX, DR7.
    mov_from_dr7: "mov rbx, dr7";
    /// OUT 80H, AL.
    out_immediate: "out 0x80, al";
    /// IN EAX, DX.
    in_dx: "in eax, dx";
    /// REP OUTSB.
    rep_outsb: "rep outsb";
    /// INSD.
    insd: "insd";
    /// RDMSR; RAX is all of it.
    rdmsr: "rdmsr", "shl rdx, 32", "or rax, rdx";
    /// WRMSR.
    wrmsr: "wrmsr";
    /// MONITOR, MWAIT.
    mwait: "mwait";
    /// MONITOR.
    monitor: "monitor";
    /// PAUSE.
    pause: "pause";
    /// Many PAUSEs.
    pause_loop: "mov ecx, 20000", "2:", "pause", "dec ecx", "jnz 2b";
    /// A loop that ends after a while.
    count: "mov ecx, 200000", "2:", "dec ecx", "jnz 2b";
    /// SGDT [RDI].
    sgdt: "sgdt [rdi]";
    /// LIDT [RDI + RCX].
    lidt: "lidt [rdi + rcx]";
    /// SLDT AX.
    sldt: "sldt eax";
    /// LTR [RDI].
    ltr: "ltr [rdi]";
    /// MOV RAX, [RDI].
    load: "mov rax, [rdi]";
    /// MOV [RDI], RAX.
    store: "mov [rdi], rax";
    /// OR [RDI], EAX.
    modify: "or [rdi], eax";
    /// MOV dword [RDI], 0.
    modify_nothing: "mov dword ptr [rdi], 0";
    /// MOV [RDI], EAX.
    store32: "mov [rdi], eax";
    /// MOV EAX, [RDI].
    load32: "mov eax, [rdi]";
    /// JMP RDI.
    jump: "jmp rdi";
    /// INVEPT RAX, [RDI].
    invept: "invept rax, [rdi]";
    /// INVVPID RCX, [RDI].
    invvpid: "invvpid rcx, [rdi]";
    /// INVPCID RDX, [RDI].
    invpcid: "invpcid rdx, [rdi]";
    /// WBINVD.
    wbinvd: "wbinvd";
    /// XSETBV.
    xsetbv: "xsetbv";
    /// RDRAND R10.
    rdrand: "rdrand r10";
    /// RDSEED BX.
    rdseed: "rdseed bx";
    /// VMFUNC.
    vmfunc: ".byte 0x0f, 0x01, 0xd4";
    /// XSAVES64 [RDI].
    xsaves: "xsaves64 [rdi]";
    /// XRSTORS [RDI].
    xrstors: "xrstors [rdi]";
    /// TPAUSE ECX.
    tpause: ".byte 0x66, 0x0f, 0xae, 0xf1";
    /// UMONITOR RDI, UMWAIT ECX.
    umwait: ".byte 0xf2, 0x0f, 0xae, 0xf1";
    /// CALL of what follows a NOP: one of the next instruction would leave the shadow stack alone.
    call: "call 2f", "nop", "2:";
    /// PUSH of RAX.
    push: "push rax";
    /// IRETQ.
    iretq: "iretq";
    /// UD2.
    ud2: "ud2";
    /// INT3.
    int3: "int3";
    /// INT1.
    int1: ".byte 0xf1";
    /// INT 20H.
    int_n: "int 0x20";
    /// Two instructions, the first with RFLAGS.TF set by the VMCS or by POPF.
    set_tf: "pushfq", "or dword ptr [rsp], 0x100", "popfq", "nop";
    /// STI with an interrupt waiting, and a NOP after it.
    sti: "sti", "nop", "nop";
    /// Writes ESI to the interrupt command register, whose page RDI has.
    send: "mov [rdi + 0x300], esi", "nop", "nop", "nop", "nop";
    /// Enables interrupts and sends.
    sti_send: "sti", "mov [rdi + 0x300], esi", "mov ecx, 200", "2:", "dec ecx", "jnz 2b";
    /// A far jump by a pointer at [RDI].
    jump_far: "jmp fword ptr [rdi]";
    /// A far call by a pointer at [RDI].
    call_far: "call fword ptr [rdi]";
    /// LOCK XADD across a cache line.
    split_lock: "lock xadd [rdi], eax";
    /// In 64-bit mode a NOP with prefixes; in others DEC EAX twice.
    nop_or_dec_eax_twice: ".byte 0x48, 0x48", "nop";
    /// The WRMSR of RDX:RAX to ECX, then RDMSR of it to RAX.
    wrmsr_rdmsr: "wrmsr", "rdmsr", "shl rdx, 32", "or rax, rdx";
    /// WRMSR, and NOPs.
    wrmsr_nops: "wrmsr", "nop", "nop", "nop", "nop";
    /// ENCLS.
    encls: ".byte 0x0f, 0x01, 0xcf";
    /// PCONFIG.
    pconfig: ".byte 0x0f, 0x01, 0xc5";
    /// RSM.
    rsm: "rsm";
}
