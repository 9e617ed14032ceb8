//! The table's peer, by itself: its dependencies would change the features of others'.

#[path = "../../src/load.rs"]
mod load;
mod peer;
#[path = "../../src/process.rs"]
#[allow(dead_code, reason = "the table's own peers need more")]
mod process;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--one", "server", _] => process::serve(peer::serve),
        ["--one", "client", _, port, load, count] => {
            let (port, load) = (port.parse().unwrap(), load::Load::parse(load, count));
            process::call(peer::call(port, load));
        }
        _ => panic!("the table starts this"),
    }
}
