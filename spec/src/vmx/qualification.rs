//! Exit qualifications and VM-exit instruction information (SDM Vol. 3C, 28.2.1 and 28.2.5).

/// Control-register accesses (SDM Vol. 3C, table 28-3).
pub mod cr_access {
    /// Position of the access type, bits 5:4.
    pub const TYPE_SHIFT: u32 = 4;
    /// Access type: MOV to CR.
    pub const MOV_TO_CR: u64 = 0;
    /// Access type: MOV from CR.
    pub const MOV_FROM_CR: u64 = 1;
    /// Access type: CLTS.
    pub const CLTS: u64 = 2;
    /// Access type: LMSW.
    pub const LMSW: u64 = 3;
    /// The operand of LMSW is in memory (bit 6).
    pub const LMSW_MEMORY: u64 = 1 << 6;
    /// Position of the general-purpose register, bits 11:8.
    pub const GPR_SHIFT: u32 = 8;
    /// Position of LMSW's source data, bits 31:16.
    pub const LMSW_SOURCE_SHIFT: u32 = 16;
}

/// MOV DR (SDM Vol. 3C, table 28-4). Bits 2:0 are the debug register.
pub mod dr_access {
    /// Bit 4: the direction is MOV from DR.
    pub const FROM_DR: u64 = 1 << 4;
    /// Position of the general-purpose register, bits 11:8.
    pub const GPR_SHIFT: u32 = 8;
}

/// I/O instructions (SDM Vol. 3C, table 28-5). Bits 2:0 are the size in bytes less 1.
pub mod io {
    /// Bit 3: the direction is IN.
    pub const IN: u64 = 1 << 3;
    /// Bit 4: INS or OUTS.
    pub const STRING: u64 = 1 << 4;
    /// Bit 5: with a REP prefix.
    pub const REP: u64 = 1 << 5;
    /// Bit 6: the port is an immediate operand.
    pub const IMMEDIATE: u64 = 1 << 6;
    /// Position of the port, bits 31:16.
    pub const PORT_SHIFT: u32 = 16;
}

/// Task switches (SDM Vol. 3C, table 28-2). Bits 15:0 are the selector of the target TSS.
pub mod task_switch {
    /// Position of the source of the switch, bits 31:30.
    pub const SOURCE_SHIFT: u32 = 30;
    /// Source: CALL.
    pub const CALL: u64 = 0;
    /// Source: IRET.
    pub const IRET: u64 = 1;
    /// Source: JMP.
    pub const JMP: u64 = 2;
    /// Source: a task gate in the IDT.
    pub const IDT_GATE: u64 = 3;
}

/// APIC accesses (SDM Vol. 3C, table 28-6). Bits 11:0 are the offset in the page for linear accesses.
pub mod apic_access {
    /// Position of the access type, bits 15:12.
    pub const TYPE_SHIFT: u32 = 12;
    /// Linear access: data read during an instruction.
    pub const READ: u64 = 0;
    /// Linear access: data write during an instruction.
    pub const WRITE: u64 = 1;
    /// Linear access: instruction fetch.
    pub const FETCH: u64 = 2;
    /// Linear access during event delivery.
    pub const EVENT_DELIVERY: u64 = 3;
    /// Linear access for monitoring.
    pub const MONITOR: u64 = 4;
    /// Guest-physical access during event delivery.
    pub const PHYSICAL_EVENT_DELIVERY: u64 = 10;
    /// Guest-physical access for an instruction's fetch or execution.
    pub const PHYSICAL: u64 = 15;
}

named_bits! {
    /// EPT violations (SDM Vol. 3C, table 28-7).
    EptViolation(u64) {
        0 READ "the access was a data read";
        1 WRITE "the access was a data write";
        2 FETCH "the access was an instruction fetch";
        3 READABLE "the guest-physical address was readable";
        4 WRITABLE "the guest-physical address was writable";
        5 EXECUTABLE "the guest-physical address was executable";
        6 USER_EXECUTABLE "the guest-physical address was executable for user-mode linear addresses";
        7 LINEAR_VALID "the guest linear-address field is valid";
        8 TRANSLATED "the access was to the translation of a linear address (0: to a paging-structure entry)";
        9 USER_PAGE "the linear address was a user-mode one (advanced information)";
        10 WRITABLE_PAGE "the linear address was read/write (advanced information)";
        11 EXECUTE_DISABLED "the linear address was execute-disable (advanced information)";
        12 NMI_UNBLOCKING "NMI unblocking due to IRET";
        13 SHADOW_STACK "a shadow-stack access";
        14 SUPERVISOR_SHADOW_STACK "supervisor shadow-stack control of the entry";
        15 GUEST_PAGING_VERIFICATION "guest-paging verification";
        16 ASYNCHRONOUS "asynchronous to the instruction";
    }
}

named_bits! {
    /// SPP-related events (SDM Vol. 3C, table 28-8).
    SppEvent(u64) {
        11 MISS "an entry of the sub-page-permission table is not valid (0: one is misconfigured)";
        12 NMI_UNBLOCKING "NMI unblocking due to IRET";
    }
}

/// VM-exit instruction information of the instructions with memory operands (SDM Vol. 3C, tables 28-8 to 28-14).
/// The index, base, scaling and segment parts are common to all of them.
pub mod instruction_info {
    /// Position of the scaling, bits 1:0 (0: by 1, 1: by 2, 2: by 4, 3: by 8).
    pub const SCALING_SHIFT: u32 = 0;
    /// Position of register operand 1, bits 6:3 (VMREAD, VMWRITE, LLDT, LTR, SLDT, STR with a register; RDRAND, RDSEED).
    pub const REGISTER1_SHIFT: u32 = 3;
    /// Position of the address size, bits 9:7 (0: 16 bits, 1: 32 bits, 2: 64 bits).
    pub const ADDRESS_SIZE_SHIFT: u32 = 7;
    /// Bit 10: the operand is a register.
    pub const REGISTER: u32 = 1 << 10;
    /// Position of the operand size, bits 12:11 (bit 11 alone for LGDT and the like; RDRAND and RDSEED: 0 16, 1 32, 2 64 bits).
    pub const OPERAND_SIZE_SHIFT: u32 = 11;
    /// Position of the segment register, bits 17:15 (0 ES, 1 CS, 2 SS, 3 DS, 4 FS, 5 GS).
    pub const SEGMENT_SHIFT: u32 = 15;
    /// Position of the index register, bits 21:18.
    pub const INDEX_SHIFT: u32 = 18;
    /// Bit 22: no index register.
    pub const INDEX_INVALID: u32 = 1 << 22;
    /// Position of the base register, bits 26:23.
    pub const BASE_SHIFT: u32 = 23;
    /// Bit 27: no base register.
    pub const BASE_INVALID: u32 = 1 << 27;
    /// Position of the instruction identity, bits 29:28 (SGDT 0, SIDT 1, LGDT 2, LIDT 3; SLDT 0, STR 1, LLDT 2, LTR 3).
    pub const IDENTITY_SHIFT: u32 = 28;
    /// Position of register operand 2, bits 31:28 (INVEPT, INVPCID, INVVPID, VMREAD, VMWRITE).
    pub const REGISTER2_SHIFT: u32 = 28;
}
