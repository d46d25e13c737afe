use processor::decode::*;
use processor::models::Model;
fn main() {
    let m = Model::default_model();
    let t = Table::shared();
    for c in iced_x86::Code::values() {
        let f = c.cpuid_features();
        if f.iter().all(|&x| announced::announces(&m, x)) && !t.get(c).known {
            print!("{c:?} ");
        }
    }
    println!();
}
