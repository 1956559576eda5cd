//! The applications that are measured: axum with one handler, and around it nothing, cloakroom, or tower-sessions.

use std::path::Path;

use axum::Router;
use axum::routing::get;
use cloakroom::Cloakroom;
use cloakroom_store_files::{FilesConfig, FilesStore, Io};
use cloakroom_store_memory::{MemoryConfig, MemoryStore};

use crate::Result;

/// The application of this name: `bare`, or whose sessions, where they are, and what is done with them.
pub async fn app(name: &str, directory: &Path) -> Result<Router> {
    if name.starts_with("bare") {
        return Ok(Router::new().route("/", get(bare)).route("/seed", get(bare)));
    }
    if name.starts_with("tower-sessions") {
        return Ok(peer::app(name));
    }
    let room = Cloakroom::builder();
    let room = if name.contains("files") {
        let directory = directory.join(name.replace(' ', "-"));
        std::fs::create_dir(&directory)?;
        let io = if name.contains("inline") { Io::Inline } else { Io::Auto };
        room.store(FilesStore::open(FilesConfig::new(directory).io(io))?)
    } else {
        room.store(MemoryStore::new(MemoryConfig::default()))
    };
    let room = room.build().await?;
    let route = match last_word(name) {
        "untouched" => get(bare),
        "read" => get(ours::read),
        _ => get(ours::changed),
    };
    Ok(Router::new().route("/", route).route("/seed", get(ours::seed)).layer(room.layer()))
}

fn last_word(name: &str) -> &str {
    name.rsplit(' ').next().unwrap_or_default()
}

async fn bare() -> String {
    7.to_string()
}

/// The session's texts, beside the counter `n`: with it about 300 bytes.
const TEXTS: [(&str, &str); 7] = [
    ("user", "ada.lovelace"),
    ("email", "ada.lovelace@example.org"),
    ("role", "ROLE_EDITOR"),
    ("csrf_token", "5c0d1e7a9b3f48d2a6e1c4b87f90d3e25a1b6c7d"),
    ("locale", "en_GB"),
    ("address", "2001:db8::42"),
    ("agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
];

mod ours {
    use cloakroom::{Result, Session};

    pub(super) async fn seed(session: Session) -> Result<String> {
        session
            .update(|draft| {
                for (key, text) in super::TEXTS {
                    draft.set(key, text)?;
                }
                draft.set("user_id", &48_151)?;
                draft.set("n", &7)
            })
            .await?;
        Ok("7".into())
    }

    pub(super) async fn read(session: Session) -> Result<String> {
        let session = session.read().await?;
        Ok(session.get::<i64>("n")?.unwrap_or(0).to_string())
    }

    pub(super) async fn changed(session: Session) -> Result<String> {
        let n = session
            .update(|draft| {
                let n = draft.get::<i64>("n")?.unwrap_or(0) + 1;
                draft.set("n", &n)?;
                Ok(n)
            })
            .await?;
        Ok(n.to_string())
    }
}

mod peer {
    use axum::Router;
    use axum::routing::get;
    use tower_sessions::{MemoryStore, Session, SessionManagerLayer};

    type Answer = Result<String, String>;

    pub(super) fn app(name: &str) -> Router {
        let route = match super::last_word(name) {
            "untouched" => get(super::bare),
            "read" => get(read),
            _ => get(changed),
        };
        let layer = SessionManagerLayer::new(MemoryStore::default()).with_secure(false);
        Router::new().route("/", route).route("/seed", get(seed)).layer(layer)
    }

    async fn seed(session: Session) -> Answer {
        for (key, text) in super::TEXTS {
            session.insert(key, text).await.map_err(|error| error.to_string())?;
        }
        session.insert("user_id", 48_151).await.map_err(|error| error.to_string())?;
        session.insert("n", 7).await.map_err(|error| error.to_string())?;
        Ok("7".into())
    }

    async fn read(session: Session) -> Answer {
        Ok(session.get::<i64>("n").await.map_err(|error| error.to_string())?.unwrap_or(0).to_string())
    }

    async fn changed(session: Session) -> Answer {
        let n = session.get::<i64>("n").await.map_err(|error| error.to_string())?.unwrap_or(0) + 1;
        session.insert("n", n).await.map_err(|error| error.to_string())?;
        Ok(n.to_string())
    }
}
