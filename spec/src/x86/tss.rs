//! Task-state segments: byte offsets of their fields (SDM Vol. 3A, 8.2.1, 8.6 and 8.7).

/// The 32-bit TSS (SDM Vol. 3A, figure 8-2).
pub mod tss32 {
    /// Selector of the previous task.
    pub const LINK: u16 = 0x00;
    /// ESP for privilege level 0; levels 1 and 2 follow, 8 bytes apart.
    pub const ESP0: u16 = 0x04;
    /// SS for privilege level 0; levels 1 and 2 follow, 8 bytes apart.
    pub const SS0: u16 = 0x08;
    /// CR3 (PDBR).
    pub const CR3: u16 = 0x1c;
    /// EIP.
    pub const EIP: u16 = 0x20;
    /// EFLAGS.
    pub const EFLAGS: u16 = 0x24;
    /// EAX, then ECX, EDX, EBX, ESP, EBP, ESI and EDI, 4 bytes apart.
    pub const EAX: u16 = 0x28;
    /// ES, then CS, SS, DS, FS and GS, 4 bytes apart.
    pub const ES: u16 = 0x48;
    /// LDT selector.
    pub const LDT: u16 = 0x60;
    /// Bit 0: raise #DB on a switch to this task.
    pub const TRAP: u16 = 0x64;
    /// Offset of the I/O permission bitmap from the TSS's base.
    pub const IO_MAP_BASE: u16 = 0x66;
    /// SSP, for a task that uses shadow stacks.
    pub const SSP: u16 = 0x68;
    /// The smallest limit a task switch accepts.
    pub const MIN_LIMIT: u32 = 0x67;
}

/// The 16-bit TSS (SDM Vol. 3A, figure 8-10).
pub mod tss16 {
    /// Selector of the previous task.
    pub const LINK: u16 = 0x00;
    /// SP for privilege level 0; levels 1 and 2 follow, 4 bytes apart.
    pub const SP0: u16 = 0x02;
    /// SS for privilege level 0; levels 1 and 2 follow, 4 bytes apart.
    pub const SS0: u16 = 0x04;
    /// IP.
    pub const IP: u16 = 0x0e;
    /// FLAGS.
    pub const FLAGS: u16 = 0x10;
    /// AX, then CX, DX, BX, SP, BP, SI and DI, 2 bytes apart.
    pub const AX: u16 = 0x12;
    /// ES, then CS, SS and DS, 2 bytes apart.
    pub const ES: u16 = 0x22;
    /// LDT selector.
    pub const LDT: u16 = 0x2a;
    /// The smallest limit a task switch accepts.
    pub const MIN_LIMIT: u32 = 0x2b;
}

/// The 64-bit TSS (SDM Vol. 3A, figure 8-11).
pub mod tss64 {
    /// RSP for privilege level 0; levels 1 and 2 follow, 8 bytes apart.
    pub const RSP0: u16 = 0x04;
    /// Interrupt-stack-table pointer 1; 2 to 7 follow, 8 bytes apart.
    pub const IST1: u16 = 0x24;
    /// Offset of the I/O permission bitmap from the TSS's base.
    pub const IO_MAP_BASE: u16 = 0x66;
    /// The limit of a TSS with no I/O bitmap.
    pub const MIN_LIMIT: u32 = 0x67;
}
