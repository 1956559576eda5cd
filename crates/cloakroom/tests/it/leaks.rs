//! Ids, cookies and contents are in no log line at any level, in no `Debug`, and in no error's text.

use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom::{Cloakroom, Session, Settings};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, Request};

const CONTENT: &str = "a-word-that-only-the-session-knows";

/// All that was said, by logs and by everything that can be printed.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn debug(&self, thing: &impl Debug) {
        self.0.lock().unwrap().extend_from_slice(format!("{thing:?} {thing:#?}\n").as_bytes());
    }

    fn error(&self, error: &cloakroom::Error) {
        self.debug(error);
        self.0.lock().unwrap().extend_from_slice(format!("{error}\n").as_bytes());
    }
}

impl io::Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn begin(room: &Cloakroom, id: Option<&str>) -> Session {
    let mut request = Request::new(());
    if let Some(id) = id {
        request.headers_mut().insert(COOKIE, format!("PHPSESSID={id}").parse().unwrap());
    }
    room.begin(&request.into_parts().0)
}

async fn end(room: &Cloakroom, session: Session, heard: &Heard) -> Option<String> {
    let mut headers = HeaderMap::new();
    if let Err(error) = room.finish(session, &mut headers).await {
        heard.error(&error);
    }
    let line = headers.get(SET_COOKIE)?.to_str().unwrap().to_owned();
    Some(line.strip_prefix("PHPSESSID=").unwrap().split(';').next().unwrap().to_owned())
}

/// A life with everything that can go wrong in it; gives the ids that were used.
async fn live(room: &Cloakroom, heard: &Heard, spoil: impl Fn(&str)) -> Vec<String> {
    let session = begin(room, None);
    session.update(|s| s.set("secret", CONTENT)).await.unwrap();
    heard.debug(&session);
    let mut ids = vec![end(room, session, heard).await.unwrap()];
    let id = ids[0].clone();

    let session = begin(room, Some(&id));
    let snapshot = session.read().await.unwrap();
    heard.debug(&snapshot);
    heard.debug(snapshot.bag());
    heard.error(&snapshot.get::<i64>("secret").unwrap_err());
    heard.error(&session.update(|s| s.set("a|b", CONTENT)).await.unwrap_err());
    heard.debug(&session.id().await);
    heard.debug(&session.cookie());
    let as_numbers = format!("{:?}", id.as_bytes());
    assert!(!format!("{:?}", session.cookie()).contains(as_numbers.trim_matches(['[', ']'])));
    let mut s = session.start().await.unwrap();
    heard.debug(&s);
    heard.error(&session.read().await.unwrap_err());
    heard.error(&begin(room, Some(&id)).update(|s| s.set("n", &1)).await.unwrap_err());
    s.regenerate_id(true).await.unwrap();
    drop(s);
    let id = end(room, session, heard).await.unwrap();
    ids.push(id.clone());

    let session = begin(room, Some(&id));
    session.rotate().await.unwrap();
    let id = end(room, session, heard).await.unwrap();
    ids.push(id.clone());

    spoil(&id);
    let session = begin(room, Some(&id));
    if let Err(error) = session.read().await {
        heard.error(&error);
        heard.error(&session.start().await.unwrap_err());
    }
    end(room, session, heard).await;

    let slow = begin(room, Some(&id));
    let read = slow.read().await.map(drop);
    begin(room, Some(&id)).destroy().await.unwrap();
    if read.is_ok()
        && let Err(error) = slow.update(|s| s.set("n", &1)).await
    {
        heard.error(&error);
    }
    heard.debug(room);
    heard.debug(room.engine());
    room.shutdown().await;
    ids
}

/// What the log of this thread says, at all levels, for as long as the guard lives.
fn listen() -> (Heard, tracing::subscriber::DefaultGuard) {
    let heard = Heard::default();
    let writer = heard.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    (heard, tracing::subscriber::set_default(subscriber))
}

/// A handle of one's own that is forgotten: its data are lost, but not in silence.
#[tokio::test]
async fn a_start_that_nobody_finished_is_in_the_log() {
    let (heard, _guard) = listen();
    let room = Cloakroom::connect("memory:").await.unwrap();
    for finished in [true, false] {
        let session = begin(&room, None);
        let mut s = session.start().await.unwrap();
        s.set("secret", CONTENT).unwrap();
        drop(s);
        if finished {
            end(&room, session, &heard).await;
        } else {
            drop(session);
        }
        let log = String::from_utf8(heard.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.contains("never finished"), !finished, "{log}");
        assert!(!log.contains(CONTENT));
    }
}

#[tokio::test]
async fn nothing_secret_gets_out() {
    let (heard, _guard) = listen();
    let mut settings = Settings::php();
    settings.update_wait = Duration::from_millis(50);
    let directory = tempfile::tempdir().unwrap();
    let files = format!("files://{}", directory.path().display());
    let mut ids = Vec::new();
    for url in ["memory:", &files] {
        let room = Cloakroom::builder().url(url).settings(settings.clone()).build().await.unwrap();
        let spoil = |id: &str| {
            let file = directory.path().join(format!("sess_{id}"));
            if file.exists() {
                std::fs::write(file, format!("secret|s:99:\"{CONTENT}\"")).unwrap();
            }
        };
        ids.extend(live(&room, &heard, spoil).await);
    }
    assert_eq!(ids.len(), 6);

    let heard = String::from_utf8(heard.0.lock().unwrap().clone()).unwrap();
    assert!(heard.contains("ERROR"), "the log was listened to");
    for secret in ids.iter().map(String::as_str).chain([CONTENT]) {
        let at = heard.find(secret);
        assert!(at.is_none(), "{}", &heard[at.unwrap_or(0).saturating_sub(200)..]);
    }
}

#[test]
fn passwords_of_stores_are_in_no_debug() {
    let mut settings = Settings::php();
    settings.save_path = "tcp://localhost:6379?auth=geheim".into();
    settings.set("memcached.sess_sasl_password", "geheim").unwrap();
    let builder = Cloakroom::builder().url("redis://user:geheim@localhost").settings(settings);
    assert!(!format!("{builder:?}").contains("geheim"), "{builder:?}");
}
