//! A process that does one thing: it says when it has, and ends with its standard input.

use std::future::Future;
use std::io::Read;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// Says its port, and serves.
pub fn serve(serve: impl AsyncFnOnce(TcpListener)) {
    std::thread::spawn(|| {
        until_input_ends();
        std::process::exit(0);
    });
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        serve(listener).await;
    });
}

/// Calls, and says that it has.
pub fn call(calls: impl Future<Output = ()>) {
    runtime().block_on(calls);
    println!("done");
    // Who started it looks first how much time it took of the processor.
    until_input_ends();
}

pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub fn until_input_ends() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
