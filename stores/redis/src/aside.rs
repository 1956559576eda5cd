//! Sessions that could not be read, kept for people to look at: copies under `cloakroom:aside:…`, of which there are
//! so many at the most and which live for so long.
//!
//! On one server the script of the commit makes the copy. Here is what a cluster needs.

use bytes::Bytes;
use cloakroom_core::store::{Outcome, Put};
use cloakroom_core::{Deadline, Key, Result};
use redis::{Pipeline, Value};

use crate::layout;
use crate::link::{Question, What};
use crate::lock::RedisLease;
use crate::reply;
use crate::store::{Inner, Want};

impl Inner {
    /// On a cluster the copies lie in other slots than the sessions, so that no script reaches both. First the copy is
    /// made, then the very state that was copied is removed: whatever happens between, nothing is lost.
    pub(crate) async fn set_aside_in_steps(
        &self,
        key: &Key,
        want: Want,
        mut lease: Option<RedisLease>,
        deadline: &Deadline,
    ) -> Result<Outcome> {
        // Where nothing is there (any more), the script knows what is to be answered, and gives the lock back.
        while let Some(record) = self.read(key, false, deadline).await? {
            let this = match &want {
                Want::Is(version) if *version != record.version => return Ok(Outcome::Conflict(record)),
                Want::Absent => return Ok(Outcome::Taken),
                Want::Held => Want::Held,
                Want::Is(_) | Want::Any => Want::Is(record.version.clone()),
            };
            self.keep_copy(key, &record.payload, deadline).await?;
            match self.commit(key, &this, &Put::Remove, &mut lease, deadline).await? {
                Outcome::Conflict(_) if matches!(want, Want::Any) => {}
                outcome => return Ok(outcome),
            }
        }
        self.commit(key, &want, &Put::Remove, &mut lease, deadline).await
    }

    async fn keep_copy(&self, key: &Key, payload: &Bytes, deadline: &Deadline) -> Result<()> {
        let (server, _) = self.server(key)?;
        let (counter, life) = (server.names.aside(), layout::seconds(self.config.aside_lifetime));
        let mut count = Pipeline::with_capacity(2);
        count.cmd("INCR").arg(&counter).cmd("EXPIRE").arg(&counter).arg(life);
        let counted = server.link.ask(&Question::again(&counter, What::Commands(count)), deadline).await?;
        let Some(Value::Int(number)) = counted.first() else { return Err(reply::strange()) };
        let number = number.rem_euclid(self.config.max_aside.into());
        let copy = [&counter, number.to_string().as_bytes()].concat();
        let mut set = Pipeline::with_capacity(1);
        set.cmd("SETEX").arg(&copy).arg(life).arg(payload.as_ref());
        server.link.ask(&Question::again(&copy, What::Commands(set)), deadline).await.map(drop)
    }
}
