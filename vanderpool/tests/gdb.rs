//! Debian's gdb on the stub, as people use it: `gdb -batch` with a script.

mod common;

use common::{Session, boot_arguments, cache, kernel, temporary};
use guests::{bare, images};
use object::{Object, ObjectSymbol};
use std::fmt::Write;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// Runs gdb on `program` with the machine at `port`; its output. `limit` is in seconds.
fn gdb(program: &Path, port: u16, script: &str, limit: u64) -> String {
    let mut command = Command::new("sh");
    // What `monitor` answers comes on standard error: one stream keeps the order.
    command.args(["-c", "exec timeout \"$@\" 2>&1", "sh", &limit.to_string(), "gdb", "-q", "-nx", "-batch"]);
    // A command that fails does not end the others, as it would in a script.
    let head = format!("set pagination off\nset confirm off\nset language c\ntarget remote 127.0.0.1:{port}");
    for line in head.lines().chain(script.lines()) {
        command.args(["-ex", line]);
    }
    let output = command.arg(program).output().expect("gdb is installed (apt-get install gdb)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_ne!(output.status.code(), Some(124), "gdb did not come to its end:\n{said}");
    said
}

/// The address of the function of the conformance program's module `code` with this name.
fn guest_code(program: &Path, name: &str) -> String {
    let bytes = fs::read(program).expect("the program");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let wanted = format!("4code{}{name}", name.len());
    let symbol = file.symbols().find(|symbol| symbol.name().is_ok_and(|symbol| symbol.contains(&wanted)));
    format!("{:#x}", symbol.unwrap_or_else(|| panic!("no {name} in the program")).address())
}

/// The arguments for a machine that waits for gdb.
fn waiting(mut arguments: Vec<String>, port: u16) -> Vec<String> {
    arguments.extend(["--gdb", &port.to_string(), "--gdb-wait", "--digest", "--stats"].map(str::to_owned));
    arguments
}

/// Waits until the machine listens.
fn wait_for_port(session: &Session, port: u16) {
    let file = format!("/proc/{}/net/tcp", session.id());
    let listening = format!("0100007F:{port:04X} 00000000:0000 0A");
    for _ in 0..600 {
        if fs::read_to_string(&file).unwrap_or_default().contains(&listening) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the machine does not listen at port {port}");
}

fn conformance() -> (PathBuf, Vec<String>) {
    let program = bare::build("conformance").expect("the program builds");
    let kernel = program.display().to_string();
    let arguments = ["boot", "--kernel", &kernel, "--memory", "64M", "--test-devices", "--no-reboot"];
    (program, arguments.map(str::to_owned).into())
}

#[track_caller]
fn expect(said: &str, lines: &[&str]) {
    let mut rest = said;
    for line in lines {
        let at = rest.find(line).unwrap_or_else(|| panic!("no {line:?} (in this order) in\n{said}"));
        rest = &rest[at + line.len()..];
    }
}

#[test]
fn a_hypervisor_and_its_guests_are_debugged_and_run_as_without_gdb() {
    let (program, arguments) = conformance();
    let mut plain = arguments.clone();
    plain.extend(["--digest", "--stats"].map(str::to_owned));
    let plain = common::run(&plain, Duration::from_secs(120));
    plain.expect_status(1);

    let port = free_port();
    let session = Session::start(&waiting(arguments, port), Duration::from_secs(300));
    wait_for_port(&session, port);
    let done = guest_code(&program, "done");
    let script = format!(
        "\
info threads
watch -location *(int*)&boot_information
continue
delete
break bare_main
continue
printf \"main: cs %#x cr0 %#lx vmx %d\\n\", $cs, $cr0, $vmx_operation
delete
monitor break-in l2
break *{done}
continue
printf \"guest: vmx %d there %d\\n\", $vmx_operation, $rip == {done}
x/i $rip
stepi
printf \"step over the exit: vmx %d\\n\", $vmx_operation
stepi
monitor exits
delete
monitor break-in any
hbreak *{done}
continue
printf \"guest: vmx %d\\n\", $vmx_operation
monitor break-in nonsense
p $eflags
p $xmm1
monitor time
detach
"
    );
    let said = gdb(&program, port, &script, 240);
    expect(
        &said,
        &[
            "CPU 0, running",
            "Hardware watchpoint",
            "Old value = 0",
            "Breakpoint 2, ",
            "main: cs 0x8 cr0 0x80010033 vmx 0",
            "breakpoints count in L2",
            "guest: vmx 2 there 1",
            "vmcall",
            "step over the exit: vmx 1",
            "VMCALL",
            "Hardware assisted breakpoint",
            "guest: vmx 2",
            "break-in takes any, l1, l2",
            " instructions",
            "detached",
        ],
    );
    let run = session.finish();
    run.expect_status(1);
    assert_eq!(run.console, plain.console);
    for what in ["instructions:", "virtual time:", "digest:"] {
        assert_eq!(run.reported(what), plain.reported(what), "{what} with and without gdb");
    }
}

#[test]
fn gdb_interrupts_changes_memory_and_registers_and_kills() {
    let (program, arguments) = conformance();
    let port = free_port();
    let session = Session::start(&waiting(arguments, port), Duration::from_secs(120));
    wait_for_port(&session, port);
    let script = "\
break bare_main
continue
set var *(int*)0x500000 = 0x12345678
x/wx 0x500000
monitor physical 0x500000 4
set $rbx = 0x77
p/x $rbx
set $cr2 = 0x1234
p/x $cr2
set $cpl = 3
x/x 0xffff800000000000
kill
";
    let said = gdb(&program, port, script, 100);
    expect(
        &said,
        &[
            "0x500000:\t0x12345678",
            "78 56 34 12",
            "$1 = 0x77",
            "$2 = 0x1234",
            "Could not write register",
            "Cannot access memory",
        ],
    );
    session.finish().expect_status(0);
}

/// Debian's kernel as L2 under its own KVM: a breakpoint by symbol, memory through the guest's paging and EPT, and on.
#[test]
#[ignore = "boots Debian twice, one in the other: minutes"]
fn gdb_breaks_in_the_kernel_of_an_l2_guest_by_symbol() {
    const L2: &str = "qemu-system-x86_64 -accel kvm -cpu host -m 256M -nodefaults -nographic -vga none -serial stdio -no-reboot \
                      -L /usr/share/qemu -L /usr/share/seabios -kernel /guest/vmlinuz -initrd /guest/initrd \
                      -append 'console=ttyS0 panic=-1 nokaslr vp.run=/run/test'";
    let machine = |script: &str| {
        let guest = images::with_script(kernel(), "echo L2 is done").expect("an image");
        let mut image = images::nested(cache(), kernel(), guest, "").expect("an image");
        image.file(images::SCRIPT, 0o755, format!("#!/bin/sh\n{script}\n").as_bytes());
        let mut arguments = boot_arguments("gdb-nested", image);
        let append = arguments.iter().position(|word| word == "--append").expect("there is one") + 1;
        arguments[append].push_str(" nokaslr");
        arguments.extend(["--memory", "1G"].map(str::to_owned));
        arguments
    };
    // The symbols, from the same kernel.
    let names = ["kernel_init", "linux_banner", "start_kernel", "rest_init"];
    let list = machine(&format!("grep -E ' ({})$' /proc/kallsyms", names.join("|")));
    let run = common::run(&list, Duration::from_secs(600));
    let mut symbols: Vec<(u64, String)> = Vec::new();
    for line in run.console.lines() {
        if let [address, _, name] = line.split_whitespace().collect::<Vec<_>>()[..]
            && names.contains(&name)
        {
            symbols.push((u64::from_str_radix(address, 16).expect("an address"), name.to_owned()));
        }
    }
    assert_eq!(symbols.len(), names.len(), "{}", run.console);
    let program = symbol_file(&mut symbols);

    let port = free_port();
    let session = Session::start(&waiting(machine(L2), port), Duration::from_secs(1800));
    wait_for_port(&session, port);
    let script = "\
monitor break-in l2
hbreak kernel_init
continue
info threads
printf \"in %d at %#lx\\n\", $vmx_operation, $rip
x/s &linux_banner
x/2i $rip
monitor walk 0xffffffff81000000
stepi
printf \"in %d\\n\", $vmx_operation
delete
detach
";
    let said = gdb(&program, port, script, 1700);
    expect(
        &said,
        &[
            "breakpoints count in L2",
            "Breakpoint 1, ",
            "L2 (VPID ",
            "in 2 at 0xffffffff",
            "Linux version",
            "in 2",
            "detached",
        ],
    );
    let run = session.finish();
    run.expect("L2 is done").expect_status(0);
}

/// An ELF file that has these symbols and nothing else.
fn symbol_file(symbols: &mut [(u64, String)]) -> PathBuf {
    symbols.sort();
    let first = symbols[0].0 & !0xfff;
    let mut source = String::from(".section .text,\"ax\",@nobits\n");
    for (address, name) in &*symbols {
        writeln!(source, ".org {:#x}\n.globl {name}\n.type {name},@function\n{name}:", address - first).unwrap();
    }
    source.push_str(".skip 4096\n");
    let source = temporary("symbols.s", source.as_bytes());
    let output = source.with_extension("elf");
    let linked = Command::new("cc")
        .args(["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none,-e,0", &format!("-Wl,-Ttext={first:#x}"), "-o"])
        .args([&output, &source])
        .output()
        .expect("a C compiler");
    assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
    output
}
