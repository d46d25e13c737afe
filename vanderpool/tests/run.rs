//! `vanderpool run`: guests side by side on the hypervisor.

mod common;

use common::{Run, Session, run, serve, temporary};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);

/// The cells of the table's row `name`, as numbers.
#[track_caller]
fn row(run: &Run, name: &str) -> Vec<u64> {
    let line = run.console.lines().find(|line| line.trim_start().starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no row {name:?}\n{}", run.console));
    let cells = line.trim_start()[name.len()..].split_whitespace();
    cells.map(|cell| cell.parse().unwrap_or_else(|_| panic!("{line}"))).collect()
}

#[track_caller]
fn demo(cpu: &str) -> Run {
    let run = run(&["run", "demo", "--cpu", cpu], LIMIT);
    run.expect("[protected] 64 pages came when they were touched").expect("[protected] 100 interrupts of the timer");
    run
}

/// What every guest of the demo says, and that the machine's table goes with it.
#[track_caller]
fn complete(cpu: &str) -> Run {
    let run = demo(cpu);
    run.expect_status(0).expect("[real] 1438 primes below 12000").expect("ticks of the timer; the time is 00:00:00");
    run.expect("[long] 500 interrupts sent to the other processor and answered");
    assert_eq!(row(&run, "HLT"), [20, 0, 1001]);
    assert_eq!(row(&run, "EPT pages of 2 MiB"), [1, 8, 8]);
    assert!(row(&run, "instructions (the machine's)").iter().all(|count| *count > 100_000));
    run
}

#[test]
fn without_arguments_the_demo_runs() {
    run::<&str>(&[], LIMIT).expect_status(0).expect("guest long: ended");
}

#[test]
fn with_apicv_interrupts_need_no_exits() {
    let run = complete("icelake-server");
    run.expect("APICv (virtual-interrupt delivery, posted interrupts)");
    assert_eq!(row(&run, "events injected")[2], 0);
    assert!(row(&run, "virtual interrupts")[2] > 990);
}

#[test]
fn without_apicv_the_local_apics_are_emulated() {
    for (cpu, text) in [
        ("icelake-server,-posted-interrupts", "APICv (virtual-interrupt delivery)"),
        ("icelake-server,-virtual-interrupts", "FlexPriority"),
        ("icelake-server,-tpr-shadow", "emulated (no TPR shadow)"),
    ] {
        let run = complete(cpu);
        run.expect(text);
    }
}

#[test]
fn without_preemption_timer_or_vpid_it_runs() {
    complete("icelake-server,-preemption-timer").expect("interrupted by the local APIC's timer");
    complete("icelake-server,-vpid").expect("VPID: no");
}

#[test]
fn without_unrestricted_guest_real_mode_is_refused_and_the_others_run() {
    let run = demo("icelake-server,-unrestricted-guest");
    run.expect_status(14)
        .expect("guest real is refused: it starts in real-address mode")
        .expect("guest protected: ended");
}

#[test]
fn what_no_guest_can_do_without_is_missed_by_name() {
    for (cpu, reason) in [("icelake-server,-ept", "has no EPT"), ("basic64", "has no VT-x")] {
        run(&["run", "--cpu", cpu], LIMIT).expect_status(12).expect(reason);
    }
}

#[test]
fn weights_and_caps_share_a_processor() {
    let run = run(&["run", "shares"], LIMIT);
    run.expect_status(0);
    let ended = |guest: &str| run.console.find(&format!("[{guest}] 100 interrupts")).unwrap();
    assert!(ended("heavy") < ended("capped") && ended("light") < ended("capped"), "{}", run.console);
}

/// Interrupts between vCPUs whose local APICs are in x2APIC mode, virtualized by the processor and emulated.
#[test]
fn local_apics_go_into_x2apic_mode() {
    let text = "[machine]\nprocessors = 2\nmemory = \"128M\"\n[[vm]]\nname = \"long\"\nvcpus = 2\nmemory = \"16M\"\n\
        boot = \"multiboot\"\nimage = \"builtin:long-mode\"\ncommand-line = \"x2apic\"\n";
    let file = temporary("x2apic.toml", text.as_bytes());
    for cpu in ["icelake-server", "icelake-server,-virtual-interrupts", "icelake-server,-tpr-shadow"] {
        let run = run(&["run", file.to_str().unwrap(), "--cpu", cpu], LIMIT);
        run.expect_status(0).expect("[long] local APIC in x2APIC mode, logical id 0x1");
        run.expect("[long] 500 interrupts sent to the other processor and answered");
        assert!(row(&run, "WRMSR")[0] > 1000);
    }
}

/// The hypervisor's image by PVH's entry, as where its multiboot header is not known.
#[test]
fn the_hypervisor_boots_by_pvh() {
    let directory = temporary("pvh", b"").with_extension("directory");
    run(&["run", "demo", "--export", directory.to_str().unwrap()], LIMIT).expect_status(0);
    let (image, guests) = (directory.join("hypervisor"), directory.join("guests"));
    let mut bytes = std::fs::read(&image).unwrap();
    let header = bytes.windows(4).position(|word| word == 0x1bad_b002u32.to_le_bytes()).unwrap();
    bytes[header] ^= 1;
    std::fs::write(&image, bytes).unwrap();
    let [image, guests] = [&image, &guests].map(|path| path.to_str().unwrap());
    let run = run(
        &["boot", "--kernel", image, "--initrd", guests, "--memory", "128M", "--cpus", "2", "--test-devices"],
        LIMIT,
    );
    run.expect("guest long: ended").expect("guest real: ended").expect("guest protected: ended").expect_status(1);
}

/// Three guests that compute on two processors: when one of the first two has ended, the third goes to its processor.
#[test]
fn who_waits_goes_to_a_processor_that_idles() {
    let vm = |name: &str| {
        let kind = "boot = \"multiboot\"\nimage = \"builtin:compute\"";
        format!("[[vm]]\nname = \"{name}\"\nmemory = \"16M\"\n{kind}\n")
    };
    let text = format!("[machine]\nprocessors = 2\nmemory = \"128M\"\n{}{}{}", vm("a"), vm("b"), vm("c"));
    let file = temporary("three.toml", text.as_bytes());
    let run = run(&["run", file.to_str().unwrap()], LIMIT);
    run.expect_status(0);
    let results: Vec<_> = run.console.lines().filter_map(|line| line.split_once("ends with ")).collect();
    assert!(results.len() == 3 && results.iter().all(|(_, sum)| *sum == results[0].1), "{results:?}");
    let moves = row(&run, "moves between processors");
    assert!((1..20).contains(&moves.iter().sum::<u64>()), "{moves:?}");
}

/// A guest that triple-faults starts again and its neighbour does not notice.
#[test]
fn a_triple_fault_is_the_guest_s_own() {
    // Counts its starts in the RTC's memory, which a reset keeps; the third time it ends.
    let image = [
        0xb0, 0x50, 0xe6, 0x70, 0xe4, 0x71, 0x40, 0x88, 0xc3, 0xb0, 0x50, 0xe6, 0x70, 0x88, 0xd8, 0xe6, 0x71, 0x3c, 3,
        0x74, 8, 0x0f, 0x01, 0x1e, 0x2c, 0x7c, 0xcc, 0xeb, 0xfe, 0x66, 0x31, 0xc0, 0xba, 0xf4, 0, 0x66, 0xef, 0xf4, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let _ = temporary("crash.bin", &image);
    let text = "[machine]\nprocessors = 2\nmemory = \"64M\"\n\
        [[vm]]\nname = \"crash\"\nmemory = \"2M\"\nrestart = true\nboot = \"real-mode\"\nimage = \"crash.bin\"\n\
        [[vm]]\nname = \"neighbour\"\nmemory = \"2M\"\nboot = \"multiboot\"\nimage = \"builtin:protected-mode\"\n";
    let file = temporary("crash.toml", text.as_bytes());
    let run = run(&["run", file.to_str().unwrap()], LIMIT);
    run.expect_status(0).expect("[neighbour] 100 interrupts of the timer");
    assert_eq!(row(&run, "started again"), [2, 0]);
    assert_eq!(row(&run, "triple fault"), [2, 0]);
}

/// What the table of costs is made of: the task priority needs no exit where the processor keeps it, and frames arrive.
#[test]
fn a_write_of_the_task_priority_exits_only_without_tpr_shadow() {
    for (cpu, exits) in [("icelake-server,-virtual-interrupts", 1..2), ("icelake-server,-tpr-shadow", 100_000..110_000)]
    {
        let run = run(&["run", "costs", "--stats", "--cpu", cpu], LIMIT);
        run.expect_status(0).expect("[receiver] 4000 frames received").expect("an exit: CPUID");
        let [_, tpr, ..] = row(&run, "VM exits")[..] else { panic!("{}", run.console) };
        assert!(exits.contains(&tpr), "{tpr} exits\n{}", run.console);
    }
}

/// Random instructions, ports, MSRs and device addresses at privilege level 0: the hypervisor and the neighbour keep running.
#[test]
fn a_hostile_guest_harms_itself_only() {
    let run = run(&["run", "hostile"], LIMIT);
    run.expect_status(0).expect("[neighbour] beat 20: all as it was").expect("[hostile] 50 rounds");
    run.expect("guest neighbour: stopped");
    assert_eq!(row(&run, "started again"), [50, 0]);
}

/// The same for 10 minutes, each time with a neighbour that lives as long: a round ends the guest by chance, some thousand rounds on the average.
#[test]
#[ignore = "10 minutes: cargo test --release -p vanderpool --test run -- --ignored hostile"]
fn a_hostile_guest_harms_itself_only_for_ten_minutes() {
    let example = include_str!("../../examples/hostile.toml");
    let (start, mut first, mut rounds) = (Instant::now(), 0, 0);
    while start.elapsed() < Duration::from_secs(600) {
        let rest = example.replace("\"50\"", &format!("\"3000 {first}\""));
        let file = temporary("long-hostile.toml", rest.as_bytes());
        let run = run(&["run", file.to_str().unwrap()], Duration::from_secs(3600));
        run.expect_status(0).expect("guest hostile: ended").expect("guest neighbour: stopped");
        assert!(run.console.contains("all as it was"), "{}", run.console);
        assert!(!run.console.contains("not as it was"), "{}", run.console);
        rounds += row(&run, "started again")[0];
        first += 100_000;
        println!("{rounds} rounds in {} s", start.elapsed().as_secs());
    }
    assert!(rounds > 1000);
}

/// Two Debian guests beside a real-mode guest; one crashes and starts again, and the others do not notice.
#[test]
#[ignore = "some minutes: cargo test --release -p vanderpool --test run -- --ignored debian"]
fn two_debian_guests_exchange_64_mib_over_the_network_and_one_crashes() {
    let run = run(&["run", "--linux"], Duration::from_secs(1200));
    run.expect_status(0).expect("3 packets transmitted, 3 packets received").expect("[real] 1438 primes below 12000");
    run.expect("[debian2] the second time").expect("seconds, started 1 time").expect("guest debian2: ended");
    assert_eq!(row(&run, "started again"), [0, 1, 0]);
    assert_eq!(row(&run, "triple fault"), [0, 1, 0]);
    let sums: Vec<_> =
        run.console.lines().filter_map(|line| line.split_once("sent     ").or(line.split_once("received "))).collect();
    let sums: Vec<_> = sums.iter().map(|(_, sum)| *sum).filter(|sum| sum.ends_with('-')).collect();
    // Sent once; received and told twice.
    assert_eq!(sums, ["de8cce0c307e935acf4522805f8a4f1c  -"; 5], "{}", run.console);
}

/// The devices of a Debian guest: console and disks by virtio, the machine's own network; another guest's console goes to a file.
#[test]
fn a_debian_guest_is_typed_to_and_has_disks_and_the_machine_s_network() {
    const PAGE: &str = "a page for a guest of a guest";
    let port = serve(PAGE);
    let disk: Vec<u8> = (0..2 << 20).map(|n: u32| (n >> 9) as u8).collect();
    let _ = temporary("guest.img", &disk);
    let log = temporary("guest.log", b"");
    let text = format!(
        "[machine]\nprocessors = 2\nmemory = \"512M\"\nnetwork = \"user\"\n\
         [[vm]]\nname = \"logged\"\nmemory = \"16M\"\nboot = \"multiboot\"\nimage = \"builtin:protected-mode\"\nconsole = {{ file = \"guest.log\" }}\n\
         [[vm]]\nname = \"debian\"\nmemory = \"256M\"\nboot = \"linux\"\nimage = \"debian\"\ncommand-line = \"quiet\"\n\
         network = true\nvirtio-console = true\ndisk = \"guest.img\"\nram-disk = \"4M\"\n\
         script = '''\n\
         echo \"disk $(md5sum < /dev/vda) $(cat /sys/block/vda/size) $(cat /sys/block/vdb/size)\"\n\
         dd if=/dev/vda of=/dev/vdb bs=64k 2>/dev/null && sync && echo 3 > /proc/sys/vm/drop_caches\n\
         cmp -n 2097152 /dev/vda /dev/vdb && echo copied\n\
         wget -q -O - http://10.0.2.2:{port}/ && echo\n\
         echo name? > /dev/hvc0\n\
         read name < /dev/hvc0; echo \"hello $name\" > /dev/hvc0\n\
         '''\n"
    );
    let file = temporary("devices.toml", text.as_bytes());
    let mut session = Session::start(&["run", file.to_str().unwrap()], 2 * LIMIT);
    if session.wait_for("[debian] name?") {
        // The second guest alone, and all again: what is typed goes to it.
        session.send("\x012\x010Ada\n");
    }
    let run = session.finish();
    let sum = "9538585058274be69cae9e186d1f1098";
    run.expect_status(0).expect(&format!("disk {sum}  - 4096 8192")).expect("[debian] copied").expect(PAGE);
    run.expect("-- debian (Ctrl-A 0: all guests) --").expect("[debian] hello Ada");
    assert!(!run.console.contains("[logged]"), "{}", run.console);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("100 interrupts of the timer"), "{log}");
}
