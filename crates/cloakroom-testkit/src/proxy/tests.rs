//! Each way of breaking a network, against a server that sends back what it gets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{End, Proxy, Way};

/// What has to happen happens within this time.
const SOON: Duration = Duration::from_secs(20);
/// What must not happen is watched for so long.
const WATCH: Duration = Duration::from_millis(60);

/// Sends back every byte, in upper case, and tells what each of its connections has got when that is over.
fn echo() -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let tell = tell.clone();
            thread::spawn(move || {
                let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    all.extend_from_slice(&buffer[..length]);
                    if stream.write_all(&buffer[..length].to_ascii_uppercase()).is_err() {
                        break;
                    }
                }
                let _ = tell.send(all);
            });
        }
    });
    (addr, told)
}

fn proxy() -> (Proxy, mpsc::Receiver<Vec<u8>>) {
    let (server, told) = echo();
    (Proxy::before(server).unwrap(), told)
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

fn hear(stream: &mut TcpStream, length: usize) -> String {
    let mut text = vec![0; length];
    stream.read_exact(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn ask(stream: &mut TcpStream, text: &str) -> String {
    say(stream, text);
    hear(stream, text.len())
}

/// What comes until the end, and how it ends: `None` is a close.
fn rest(stream: &mut TcpStream) -> (String, Option<ErrorKind>) {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break None,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(error) => break Some(error.kind()),
        }
    };
    (String::from_utf8(text).unwrap(), end)
}

/// Nothing comes, and the connection stays open.
fn assert_silent(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(WATCH)).unwrap();
    let error = stream.read(&mut [0; 16]).map(|length| format!("{length} bytes")).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error:?}");
    stream.set_read_timeout(Some(SOON)).unwrap();
}

fn until(reached: impl Fn() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < SOON, "it does not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_not_broken_goes_through() {
    let (proxy, told) = proxy();
    let mut stream = connect(&proxy);
    assert_eq!(ask(&mut stream, "hello"), "HELLO");
    let long = "x".repeat(3_000_000);
    let mut writer = stream.try_clone().unwrap();
    let sent = long.clone();
    let writing = thread::spawn(move || say(&mut writer, &sent));
    assert_eq!(hear(&mut stream, long.len()), long.to_uppercase());
    writing.join().unwrap();
    // Who has said everything still hears the rest.
    say(&mut stream, "bye");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut stream), ("BYE".to_owned(), None));
    assert!(told.recv_timeout(SOON).unwrap().ends_with(b"xxbye"));
    until(|| proxy.counts().open == 0);
}

#[test]
fn latency_is_kept_each_way_and_makes_nothing_slower() {
    let (proxy, _told) = proxy();
    let mut stream = connect(&proxy);
    ask(&mut stream, "warm");
    let latency = Duration::from_millis(40);
    for way in [Way::Request, Way::Reply] {
        proxy.delay(way, latency);
        let begun = Instant::now();
        assert_eq!(ask(&mut stream, "a"), "A");
        assert!(begun.elapsed() >= latency, "{way:?}: {:?}", begun.elapsed());
        proxy.delay(way, Duration::ZERO);
    }
    // A thousand bytes, one by one: each late, all together not later.
    proxy.delay(Way::Reply, Duration::from_millis(100));
    let begun = Instant::now();
    for _ in 0..1000 {
        say(&mut stream, "b");
    }
    assert_eq!(hear(&mut stream, 1000), "B".repeat(1000));
    assert!(begun.elapsed() >= Duration::from_millis(100) && begun.elapsed() < SOON, "{:?}", begun.elapsed());
    proxy.heal();
    assert_eq!(ask(&mut stream, "c"), "C");
}

#[test]
fn a_reset_is_a_reset_and_others_can_come_at_once() {
    let (proxy, told) = proxy();
    let (mut one, mut two) = (connect(&proxy), connect(&proxy));
    ask(&mut one, "1");
    ask(&mut two, "2");
    proxy.reset();
    assert_eq!(proxy.counts().open, 0);
    for stream in [&mut one, &mut two] {
        assert_eq!(rest(stream), (String::new(), Some(ErrorKind::ConnectionReset)));
    }
    told.recv_timeout(SOON).unwrap();
    told.recv_timeout(SOON).unwrap();
    assert_eq!(ask(&mut connect(&proxy), "3"), "3");
    assert_eq!(proxy.counts().connections, 3);
}

#[test]
fn a_closed_port_refuses_and_comes_back() {
    let (proxy, _told) = proxy();
    let mut stream = connect(&proxy);
    ask(&mut stream, "1");
    for _ in 0..3 {
        proxy.refuse();
        assert_eq!(rest(&mut stream).1, Some(ErrorKind::ConnectionReset));
        let error = TcpStream::connect(proxy.addr()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let other = tokio::net::TcpSocket::new_v4().unwrap();
        assert_eq!(other.bind(proxy.addr()).unwrap_err().kind(), ErrorKind::AddrInUse);
        proxy.heal();
        stream = connect(&proxy);
        assert_eq!(ask(&mut stream, "2"), "2");
    }
}

#[test]
fn a_server_that_is_not_there_is_a_reset() {
    let nobody = crate::process::free_addr().unwrap();
    let proxy = Proxy::before(nobody).unwrap();
    assert_eq!(rest(&mut connect(&proxy)).1, Some(ErrorKind::ConnectionReset));
}

#[test]
fn a_black_hole_swallows_both_ways_and_spares_the_idle() {
    let (proxy, told) = proxy();
    let (mut busy, mut idle) = (connect(&proxy), connect(&proxy));
    ask(&mut busy, "busy");
    ask(&mut idle, "idle");
    proxy.swallow_all();
    let mut new = connect(&proxy);
    say(&mut busy, "lost");
    say(&mut new, "lost");
    until(|| proxy.counts().asked == 16);
    assert_silent(&mut busy);
    proxy.heal();
    // What was lost does not come back, and what follows would make no sense without it.
    say(&mut busy, "more");
    say(&mut new, "more");
    until(|| proxy.counts().asked == 24);
    assert_silent(&mut busy);
    assert_silent(&mut new);
    assert_eq!(proxy.counts().requests, 8);
    assert_eq!(ask(&mut idle, "well"), "WELL");
    // The server does not keep who has left.
    drop(busy);
    assert_eq!(told.recv_timeout(SOON).unwrap(), b"busy");
}

#[test]
fn a_half_open_connection_carries_requests_and_no_replies() {
    let (proxy, told) = proxy();
    let mut stream = connect(&proxy);
    ask(&mut stream, "one");
    proxy.swallow_replies();
    say(&mut stream, "two");
    until(|| proxy.counts().requests == 6);
    assert_silent(&mut stream);
    proxy.heal();
    assert_silent(&mut stream);
    drop(stream);
    assert_eq!(told.recv_timeout(SOON).unwrap(), b"onetwo");
    assert_eq!(proxy.counts().replies, 3);
    assert_eq!(ask(&mut connect(&proxy), "three"), "THREE");
}

#[test]
fn exactly_so_many_bytes_of_a_reply_arrive() {
    let (proxy, told) = proxy();
    for after in 0..=6 {
        let mut stream = connect(&proxy);
        proxy.cut(Way::Reply, after, End::Reset);
        say(&mut stream, "secret");
        assert_eq!(rest(&mut stream), ("SECRET"[..after].to_owned(), Some(ErrorKind::ConnectionReset)));
        assert!(proxy.has_cut());
        // The question had arrived whole.
        assert_eq!(told.recv_timeout(SOON).unwrap(), b"secret");
        assert_eq!(ask(&mut connect(&proxy), "it happens once"), "IT HAPPENS ONCE");
        told.recv_timeout(SOON).unwrap();
    }
}

#[test]
fn exactly_so_many_bytes_of_a_request_arrive() {
    let (proxy, told) = proxy();
    for end in [End::Reset, End::Close] {
        for after in 0..=6 {
            let mut stream = connect(&proxy);
            proxy.cut(Way::Request, after, end);
            say(&mut stream, "secret");
            let error = (end == End::Reset).then_some(ErrorKind::ConnectionReset);
            assert_eq!(rest(&mut stream).1, error, "{end:?} {after}");
            drop(stream);
            assert_eq!(told.recv_timeout(SOON).unwrap(), b"secret"[..after], "{end:?} {after}");
        }
    }
}

#[test]
fn a_cut_counts_the_bytes_of_all_connections() {
    let (proxy, _told) = proxy();
    let (mut one, mut two) = (connect(&proxy), connect(&proxy));
    proxy.cut(Way::Request, 7, End::Reset);
    assert_eq!(ask(&mut one, "four"), "FOUR");
    assert!(!proxy.has_cut());
    say(&mut two, "four");
    assert_eq!(rest(&mut two).1, Some(ErrorKind::ConnectionReset));
    assert!(proxy.has_cut());
    assert_eq!(ask(&mut one, "not me"), "NOT ME");
}

#[test]
fn silence_after_so_many_bytes_leaves_the_connection_open() {
    let (proxy, told) = proxy();
    for (way, heard) in [(Way::Reply, "SEC"), (Way::Request, "")] {
        let mut stream = connect(&proxy);
        proxy.cut(way, 3, End::Silence);
        say(&mut stream, "secret");
        assert_eq!(hear(&mut stream, heard.len()), heard);
        until(|| proxy.has_cut());
        if way == Way::Reply {
            assert_silent(&mut stream);
            say(&mut stream, "more");
            assert_silent(&mut stream);
        }
        drop(stream);
        let got = told.recv_timeout(SOON).unwrap();
        assert_eq!(got, if way == Way::Reply { &b"secret"[..] } else { b"sec" });
    }
}

#[test]
fn what_is_paused_arrives_later_whole_and_in_order() {
    let (proxy, _told) = proxy();
    let mut stream = connect(&proxy);
    for way in [Way::Reply, Way::Request] {
        proxy.pause(way);
        say(&mut stream, "one");
        until(|| proxy.counts().asked >= 3);
        assert_silent(&mut stream);
        say(&mut stream, "two");
        proxy.resume();
        assert_eq!(hear(&mut stream, 6), "ONETWO");
    }
    // In the midst of a reply.
    proxy.cut(Way::Reply, 2, End::Pause);
    say(&mut stream, "three");
    assert_eq!(hear(&mut stream, 2), "TH");
    assert_silent(&mut stream);
    let mut other = connect(&proxy);
    say(&mut other, "other");
    assert_silent(&mut other);
    proxy.heal();
    assert_eq!((hear(&mut stream, 3), hear(&mut other, 5)), ("REE".to_owned(), "OTHER".to_owned()));
}

#[test]
fn a_round_trip_is_a_request_after_a_reply() {
    let (proxy, _told) = proxy();
    let (mut one, mut two) = (connect(&proxy), connect(&proxy));
    assert_eq!(proxy.counts().round_trips, 0, "connecting is none");
    for n in 1..=5 {
        ask(&mut one, "question");
        assert_eq!(proxy.counts().round_trips, n);
    }
    // A request in pieces, and several without waiting: one.
    proxy.pause(Way::Reply);
    for _ in 0..3 {
        say(&mut one, "part");
        let asked = proxy.counts().asked;
        until(|| proxy.counts().asked >= asked);
    }
    proxy.resume();
    hear(&mut one, 12);
    assert_eq!(proxy.counts().round_trips, 6);
    // Each connection for itself.
    ask(&mut two, "question");
    assert_eq!(proxy.counts().round_trips, 7);
    // A reply that does not reach the client begins nothing new.
    proxy.swallow_replies();
    say(&mut two, "a");
    until(|| proxy.counts().requests == 5 * 8 + 12 + 8 + 1);
    say(&mut two, "b");
    until(|| proxy.counts().requests == 5 * 8 + 12 + 8 + 2);
    assert_eq!(proxy.counts().round_trips, 8);
    proxy.heal();
    // What is not for anybody does not count.
    proxy.leave_out(|bytes| bytes == b"ping");
    ask(&mut one, "ping");
    ask(&mut one, "pong");
    assert_eq!(proxy.counts().round_trips, 9);
}

#[test]
fn bytes_and_connections_are_counted() {
    let (proxy, _told) = proxy();
    let mut stream = connect(&proxy);
    ask(&mut stream, "12345");
    let counts = proxy.counts();
    assert_eq!((counts.connections, counts.open, counts.asked), (1, 1, 5));
    assert_eq!((counts.requests, counts.replies), (5, 5));
}

#[test]
fn a_marker_is_found_also_across_the_borders_of_what_is_sent() {
    let (proxy, _told) = proxy();
    let mut stream = connect(&proxy);
    proxy.watch("marker");
    for part in ["a marker and a mar", "ker and a m", "arke", "r and market"] {
        ask(&mut stream, part);
    }
    assert_eq!(proxy.seen(), 3);
    proxy.watch("r");
    ask(&mut stream, "rrr");
    assert_eq!(proxy.seen(), 3);
}

#[test]
fn a_dropped_proxy_ends_its_connections_and_frees_its_port() {
    let (proxy, told) = proxy();
    let mut stream = connect(&proxy);
    ask(&mut stream, "hello");
    let addr = proxy.addr();
    drop(proxy);
    assert!(stream.read(&mut [0; 1]).map_or(true, |length| length == 0));
    told.recv_timeout(SOON).unwrap();
    assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
