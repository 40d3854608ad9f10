//! Asks the sample about one request, as `vectors.py` describes it.

mod sample;

use std::{env, fs, process, time::SystemTime};

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let lines = fs::read(&arguments[1]).expect("the headers can be read");
    let body = fs::read(&arguments[2]).expect("the body can be read");
    let mut headers = http::HeaderMap::new();
    for line in String::from_utf8_lossy(&lines).split("\r\n") {
        if let Some((name, value)) = line.split_once(": ") {
            let name = name.parse::<http::HeaderName>().expect("a header's name");
            headers.append(name, value.parse().expect("a header's value"));
        }
    }
    let now = arguments.get(3).map_or_else(
        || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64),
        |now| now.parse().expect("a time"),
    );
    let secret = env::var("SECRET").expect("a secret");
    process::exit(if sample::verify(&secret, &headers, &body, now) { 0 } else { 10 });
}
