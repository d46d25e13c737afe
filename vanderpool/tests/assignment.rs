//! Functions of the machine assigned to guests of the hypervisor (`vanderpool run`), behind VT-d.

mod common;

use common::{Run, run, serve, temporary};
use sha2::{Digest, Sha256};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// A guest that drives `edu`: see `guests/demo/src/edu.rs`.
fn guest(name: &str, command_line: &str, rest: &str) -> String {
    format!(
        "[[vm]]\nname = \"{name}\"\nmemory = \"16M\"\nboot = \"multiboot\"\nimage = \"builtin:edu\"\n\
         command-line = \"{command_line}\"\n{rest}\n"
    )
}

/// Runs a machine with these parts of `[machine]`, `[iommu]` and these guests.
fn machine(name: &str, machine: &str, iommu: &str, guests: &[String], arguments: &[&str]) -> Run {
    let text = format!("[machine]\nmemory = \"512M\"\n{machine}\n{iommu}\n{}", guests.concat());
    let file = temporary(&format!("assignment-{name}.toml"), text.as_bytes());
    let mut all = vec!["run", file.to_str().unwrap()];
    all.extend(arguments);
    run(&all, LIMIT)
}

/// The cells of the table's row `name`, as numbers; none if there is no such row.
#[track_caller]
fn row(run: &Run, name: &str) -> Vec<u64> {
    let Some(line) = run.console.lines().find(|line| line.trim_start().starts_with(name)) else { return Vec::new() };
    let cells = line.trim_start()[name.len()..].split_whitespace();
    cells.map(|cell| cell.parse().unwrap_or_else(|_| panic!("{line}"))).collect()
}

/// One guest that takes `count` interrupts of `edu`.
#[track_caller]
fn interrupts(name: &str, count: u64, iommu: &str, cpu: &str) -> Run {
    let guests = [guest("a", &count.to_string(), "assign = [\"edu\"]")];
    let run = machine(name, "edu = 1", iommu, &guests, &["--cpu", cpu]);
    run.expect_status(0).expect("[a] edu at 0xe8000000, as after a reset").expect("[a] a page moved there and back");
    run.expect(&format!("[a] {count} interrupts taken"));
    assert_eq!((row(&run, "functions assigned"), row(&run, "faults of their DMA")), (vec![1], vec![0]));
    run
}

#[test]
fn posted_interrupts_need_no_exits() {
    let run = interrupts("posted", 100_000, "[iommu]", "icelake-server");
    run.expect("interrupts remapped and posted");
    assert!(row(&run, "external interrupt").is_empty(), "{}", run.console);
    // The registers are mapped once, the local APIC is the processor's.
    assert_eq!(row(&run, "EPT violation"), [1], "{}", run.console);
}

#[test]
fn what_is_not_posted_exits_and_is_delivered() {
    const COUNT: u64 = 10_000;
    for (name, iommu, cpu) in [
        ("unit", "[iommu]\nposting = false", "icelake-server"),
        ("processor", "[iommu]", "icelake-server,-posted-interrupts"),
        ("emulated", "[iommu]\neim = false\naw-bits = 39", "icelake-server,-tpr-shadow"),
    ] {
        let run = interrupts(name, COUNT, iommu, cpu);
        let exits = row(&run, "external interrupt")[0];
        assert!((COUNT..COUNT + 10).contains(&exits), "{}", run.console);
    }
}

/// Units that can do more or less, one that keeps what is not present, and one for the function alone.
#[test]
fn units_of_every_kind_serve() {
    for (name, properties) in [
        ("scalable", "scalable = true\ndevice-iotlb = true\npage-requests = true"),
        ("caching", "caching-mode = true"),
        ("wide", "aw-bits = 57"),
        ("own", "scope = [\"2.0\"]"),
    ] {
        let run = interrupts(name, 100, &format!("[iommu]\n{properties}"), "icelake-server");
        run.expect(if name == "own" { "VT-d: 2 remapping units" } else { "VT-d: 1 remapping unit" });
    }
}

/// A vCPU goes from one processor to another; interrupts of its function follow.
#[test]
fn interrupts_follow_a_vcpu_to_another_processor() {
    let short = "[[vm]]\nname = \"short\"\nmemory = \"16M\"\nboot = \"multiboot\"\nimage = \"builtin:exits\"\n";
    // The first and the third are on one processor, until the second has ended and one of them goes to its own.
    let guests =
        [guest("a", "500000", "assign = [\"edu\"]"), short.to_owned(), guest("b", "500000", "assign = [\"edu 2\"]")];
    let run = machine("follow", "processors = 2\nedu = 2", "[iommu]", &guests, &[]);
    run.expect_status(0).expect("[a] 500000 interrupts taken").expect("[b] 500000 interrupts taken");
    assert!(row(&run, "moves between processors").iter().sum::<u64>() > 0, "{}", run.console);
}

/// Random instructions, with accesses to three functions and their configuration space among them.
#[test]
fn a_hostile_guest_with_functions_harms_itself_only() {
    let hostile = "[[vm]]\nname = \"hostile\"\nmemory = \"4M\"\nrestart = true\nwatchdog = 20\n\
        assign = [\"edu\", \"dma-tester\", \"network\"]\nboot = \"multiboot\"\nimage = \"builtin:hostile\"\n\
        command-line = \"50\"\n";
    let neighbour = "[[vm]]\nname = \"neighbour\"\nmemory = \"16M\"\nbackground = true\nboot = \"multiboot\"\n\
        image = \"builtin:heartbeat\"\n";
    let with = "processors = 2\nedu = 1\ndma-testers = 1\nnetwork = \"user\"";
    let run = machine("hostile", with, "[iommu]", &[hostile.into(), neighbour.into()], &[]);
    run.expect_status(0).expect("[hostile] 50 rounds").expect("guest neighbour: stopped");
    let beats: Vec<_> = run.console.lines().filter(|line| line.starts_with("[neighbour] beat")).collect();
    assert!(!beats.is_empty() && beats.iter().all(|line| line.contains("all as it was")), "{}", run.console);
}

/// The example: a guest directs its function at everybody's memory, crashes, starts again, ends; and the next one has the function.
#[test]
fn a_wild_function_harms_only_its_own_domain_and_goes_from_guest_to_guest() {
    let run = run(&["run", "assigned"], LIMIT);
    run.expect_status(0);
    let lines = |text: &str| run.console.lines().filter(|line| line.contains(text)).count();
    // The first time, the second time, and the next guest.
    assert_eq!(lines("[wild] edu at 0xe8000000, as after a reset"), 2, "{}", run.console);
    assert_eq!(lines("[wild] triple fault, with edu at work"), 1);
    assert_eq!(lines("[next] edu at 0xe8000000, as after a reset"), 1);
    assert_eq!(lines("with something of before"), 0);
    run.expect("guest wild: its function 00:02.0 was kept from writing to page 0x1000000: no write permission");
    run.expect("guest wild: its function 00:02.0 was kept from reading page 0x1000000: no read permission");
    run.expect("[wild] 998 transfers beyond its memory and 257 interrupts of its own making tried");
    // All but the interrupt that is the guest's own, both times.
    assert_eq!(row(&run, "faults of their DMA"), [2 * (998 + 256), 0, 0], "{}", run.console);
    assert_eq!(row(&run, "started again"), [1, 0, 0]);
    let beats: Vec<_> = run.console.lines().filter(|line| line.starts_with("[neighbour] beat")).collect();
    assert!(!beats.is_empty() && beats.iter().all(|line| line.contains("all as it was")), "{}", run.console);
}

/// Without a guest that has a function: every device is kept from memory, and the hypervisor's own card reaches its pages.
#[test]
fn the_hypervisor_s_own_card_works_behind_the_unit() {
    let guests = [guest("a", "10", "assign = [\"edu\"]\nnetwork = true")];
    let run = machine("uplink", "edu = 1\nnetwork = \"user\"", "[iommu]", &guests, &[]);
    run.expect_status(0).expect("guests reach its network").expect("[a] 10 interrupts taken");
    assert_eq!(row(&run, "faults of their DMA"), [0]);
    assert!(!run.console.contains("no guest has"), "{}", run.console);
}

#[test]
fn what_cannot_be_isolated_is_refused_in_words() {
    let one = |assign: &str| [guest("a", "1", &format!("assign = {assign}"))];
    let network = [guest("a", "1", "assign = [\"network\"]\nnetwork = true")];
    let both = [guest("a", "1", "assign = [\"edu\"]"), guest("b", "1", "assign = [\"00:02.0\"]")];
    let reserved = "[iommu]\nreserved = \"0x70000-0x7ffff@2.0\"";
    for (n, (iommu, guests, words)) in [
        ("", &one("[\"edu\"]")[..], "there is no remapping unit (VT-d) between devices and memory: [iommu]"),
        ("[iommu]", &one("[\"00:09.0\"]"), "there is no function 00:09.0 on this machine"),
        ("[iommu]", &one("[\"edu\", \"edu\"]"), "it is given 00:02.0 twice"),
        ("[iommu]", &one("[\"edu 2\"]"), "there is no function edu 2"),
        ("[iommu]", &one("[\"00:1f.0\"]"), "it is a bridge"),
        ("[iommu]", &network, "the hypervisor uses it itself"),
        ("[iommu]", &both, "00:02.0 is given to b as well: one of them is to run after the other"),
        ("[iommu]\nintremap = false", &one("[\"edu\"]"), "its remapping unit does not remap interrupts"),
        (reserved, &one("[\"edu\"]"), "firmware needs its access to reserved memory (RMRR)"),
    ]
    .into_iter()
    .enumerate()
    {
        let functions = if words.contains("hypervisor") { "network = \"user\"" } else { "edu = 1" };
        let run = machine(&format!("refused-{n}"), functions, iommu, guests, &[]);
        run.expect_status(12).expect("guest a is refused: ").expect(words);
    }
}

/// Debian's stock drivers on a disk and a network card of the machine's, beside a guest that has `edu`.
#[test]
fn debian_drives_a_disk_and_a_network_card_of_the_machine() {
    const PAGE: &str = "a page through an assigned card\n";
    let port = serve(PAGE);
    let mut contents: Vec<u8> = (0..16u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let disk = temporary("assigned.img", &contents);
    let debian = format!(
        "[[vm]]\nname = \"debian\"\nvcpus = 2\nmemory = \"256M\"\nboot = \"linux\"\nimage = \"debian\"\n\
         command-line = \"quiet\"\nassign = [\"disk\", \"network\"]\n\
         script = '''\n\
         echo sum: $(sha256sum < /dev/vda)\n\
         seq 1 100000 | dd of=/dev/vda bs=64k conv=notrunc,fsync iflag=fullblock 2>/dev/null\n\
         i=0; while [ $i -lt 20 ]; do wget -q -O - http://10.0.2.2:{port}/ >>/tmp/pages; i=$((i + 1)); done\n\
         echo pages: $(sort -u /tmp/pages) $(wc -l < /tmp/pages)\n\
         ping -c 2 10.0.2.2\n\
         awk '/virtio0-req|virtio1-input/ {{ print \"interrupts: \" ($2 + $3 > 30) }}' /proc/interrupts\n\
         '''\n"
    );
    let guests = [debian, guest("edu", "1000", "assign = [\"edu\"]")];
    let with = "processors = 2\nnetwork = \"user\"\ndisks = [\"assigned.img\"]\nedu = 1";
    let run = machine("debian", with, "[iommu]", &guests, &[]);
    let sum: String = Sha256::digest(&contents).iter().map(|byte| format!("{byte:02x}")).collect();
    run.expect_status(0).expect(&format!("[debian] sum: {sum}")).expect("[edu] 1000 interrupts taken");
    run.expect("[debian] pages: a page through an assigned card 20").expect("2 packets received");
    assert_eq!(run.console.matches("[debian] interrupts: 1").count(), 2, "{}", run.console);
    assert_eq!((row(&run, "functions assigned"), row(&run, "faults of their DMA")), (vec![2, 1], vec![0, 0]));
    let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    contents[..numbers.len()].copy_from_slice(numbers.as_bytes());
    assert!(std::fs::read(&disk).unwrap() == contents, "what the guest wrote is in the disk's file");
}
