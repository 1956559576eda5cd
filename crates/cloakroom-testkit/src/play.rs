//! Playing a scenario against a probe: what is sent, what comes back, what lies on disk afterwards.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Doing, Failure, Result};
use crate::http::{self, Ask, Reply};
use crate::keys::{Keys, Place};
use crate::latin1;
use crate::normal::Names;
use crate::scenario::{Cookie, Kind, Planted, Request, Scenario};
use crate::store::{self, Entry};
use crate::times;

/// The headers that are compared, as PHP spells them.
const COMPARED: [&str; 4] = ["Set-Cookie", "Expires", "Cache-Control", "Pragma"];

/// All answers of one run, with names in place of what differs from run to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// One per request; those of `meanwhile` right after their request.
    pub answers: Vec<Answer>,
}

/// One answer, as it is compared and recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The compared headers in order, `Name: value`.
    pub headers: Vec<String>,
    /// One per op: `value`, and `warned` if true.
    pub results: Vec<Value>,
    /// The settings that were refused, where the server tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Vec<String>>,
    /// The body, if it is not what the contract says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// What PHP said at each op; for the reader, never compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<Value>,
    /// The store afterwards; among requests that run at once only the last has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<BTreeMap<String, Entry>>,
}

/// Plays one scenario in a fresh directory.
pub fn play(scenario: &Scenario, target: SocketAddr) -> Result<Transcript> {
    let doing = || format!("playing {}", scenario.name);
    let root = tempfile::Builder::new().prefix("cloakroom-scenario-").tempdir().doing(doing)?;
    let save_path = root.path().join(store::SAVE_PATH);
    std::fs::create_dir(&save_path).doing(doing)?;
    let keys = match scenario.store {
        Place::Files => None,
        place => Some(Keys::open(place).doing(doing)?),
    };
    let mut names = Names::new(root.path().to_string_lossy().into_owned(), known_text(scenario));
    if let Some(keys) = &keys {
        names.place(keys.placeholder());
    }
    let mut run = Run { target, store: scenario.store, keys, names, jar: Vec::new(), answers: Vec::new() };
    run.plant(&save_path, &scenario.files).doing(doing)?;
    for request in &scenario.requests {
        run.plant(&save_path, &request.before).doing(doing)?;
        run.group(request, root.path()).doing(doing)?;
    }
    make_removable(&save_path);
    Ok(Transcript { answers: run.answers })
}

struct Run {
    target: SocketAddr,
    store: Place,
    /// Where the sessions are, unless in files.
    keys: Option<Keys>,
    names: Names,
    jar: Vec<(String, String)>,
    answers: Vec<Answer>,
}

/// A request with its placeholders filled in.
struct Ready {
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    ops: Vec<Value>,
    after: Duration,
}

impl Run {
    fn plant(&self, save_path: &Path, files: &[Planted]) -> Result<()> {
        for planted in files {
            let filled = Planted {
                name: self.names.fill(&planted.name),
                target: planted.target.as_deref().map(|target| self.names.fill(target)),
                ..planted.clone()
            };
            match &self.keys {
                Some(keys) => keys.plant(&filled)?,
                None => store::plant(save_path, &filled)?,
            }
        }
        Ok(())
    }

    /// Sends a request and those that run meanwhile, and takes down their answers.
    fn group(&mut self, request: &Request, root: &Path) -> Result<()> {
        let ready: Vec<Ready> = std::iter::once(request).chain(&request.meanwhile).map(|one| self.ready(one)).collect();
        let begun = times::now();
        let target = self.target;
        let replies: Vec<Result<Reply>> = thread::scope(|scope| {
            let sent: Vec<_> = ready.iter().map(|one| scope.spawn(move || one.send(target))).collect();
            sent.into_iter()
                .map(|one| one.join().unwrap_or_else(|_| Err(Failure::new("the client panicked"))))
                .collect()
        });
        let mut store = Some(match &self.keys {
            Some(keys) => keys.list()?,
            None => store::list(root)?,
        });
        for (n, (one, reply)) in ready.iter().zip(replies).enumerate() {
            let reply = reply?;
            self.keep_cookies(&reply);
            let mut answer = answer(&reply, &one.ops);
            if n + 1 == ready.len() {
                answer.store = store.take();
            }
            self.names.normalise(&mut answer, &one.ops, begun);
            self.answers.push(answer);
        }
        Ok(())
    }

    fn ready(&self, request: &Request) -> Ready {
        let jar = || self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let cookies = match &request.cookie {
            Cookie::None => Vec::new(),
            Cookie::One(text) if text == "jar" => vec![jar()],
            Cookie::One(text) => vec![self.names.fill(text)],
            Cookie::Lines(lines) => lines.iter().map(|line| self.names.fill(line)).collect(),
        };
        let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        headers.extend(cookies.into_iter().filter(|text| !text.is_empty()).map(|text| ("Cookie".to_owned(), text)));
        headers.extend(request.headers.iter().map(|(name, value)| (name.clone(), self.names.fill(value))));
        let mut ini = Map::new();
        match (&self.keys, self.store) {
            (Some(keys), place) => {
                ini.insert("session.save_handler".into(), json!(place.name()));
                ini.insert("session.save_path".into(), json!(keys.placeholder().0));
            }
            (None, _) => _ = ini.insert("session.save_path".into(), json!("{save_path}")),
        }
        ini.insert("session.gc_probability".into(), json!("0"));
        ini.extend(request.ini.clone());
        let ini = self.names.fill_value(&Value::Object(ini));
        let ops: Vec<Value> = request.ops.iter().map(|op| self.names.fill_value(op)).collect();
        let body = json!({ "ini": ini, "ops": ops }).to_string().into_bytes();
        Ready {
            query: self.names.fill(&request.query),
            headers,
            body,
            ops,
            after: Duration::from_millis(request.after_ms),
        }
    }

    fn keep_cookies(&mut self, reply: &Reply) {
        for cookie in reply.all("set-cookie") {
            let (pair, attributes) = cookie.split_once(';').unwrap_or((cookie, ""));
            if let Some((name, value)) = pair.split_once('=') {
                self.jar.retain(|(kept, _)| kept != name);
                if !attributes.contains("Max-Age=0") {
                    self.jar.push((name.to_owned(), value.to_owned()));
                }
            }
        }
    }
}

impl Ready {
    fn send(&self, target: SocketAddr) -> Result<Reply> {
        thread::sleep(self.after);
        let path = if self.query.is_empty() { "/probe".to_owned() } else { format!("/probe?{}", self.query) };
        http::send(target, &Ask { method: "POST", target: &path, headers: &self.headers, body: &self.body })
    }
}

fn answer(reply: &Reply, ops: &[Value]) -> Answer {
    let compared = |name: &str| COMPARED.into_iter().find(|known| known.eq_ignore_ascii_case(name));
    let headers = reply
        .headers
        .iter()
        .filter_map(|(name, value)| compared(name).map(|name| format!("{name}: {value}")))
        .collect();
    let mut answer = Answer {
        status: reply.status,
        headers,
        results: Vec::new(),
        refused: None,
        body: None,
        said: Vec::new(),
        store: None,
    };
    let is = |op: &Value, name: &str| op.get(0).and_then(Value::as_str) == Some(name);
    let output: String = ops.iter().filter(|op| is(op, "output")).filter_map(|op| op.get(1)?.as_str()).collect();
    let json = reply.body.strip_prefix(latin1::bytes(&output).as_slice());
    match json.and_then(|json| serde_json::from_slice::<Value>(json).ok()) {
        Some(Value::Object(mut members)) => {
            answer.results = list(members.remove("results")).into_iter().map(only_what_counts).collect();
            let said = list(members.remove("said"));
            if said.iter().any(|texts| texts.as_array().is_some_and(|texts| !texts.is_empty())) {
                answer.said = said;
            }
            answer.refused = members.remove("refused").and_then(|refused| serde_json::from_value(refused).ok());
        }
        _ => answer.body = Some(latin1::text(&reply.body)),
    }
    answer
}

fn list(value: Option<Value>) -> Vec<Value> {
    value.and_then(|value| if let Value::Array(list) = value { Some(list) } else { None }).unwrap_or_default()
}

/// A result without further members, and without a `warned` that is not true.
fn only_what_counts(result: Value) -> Value {
    let Value::Object(mut members) = result else { return result };
    let mut out = Map::new();
    out.insert("value".into(), members.remove("value").unwrap_or_default());
    if members.remove("warned") == Some(Value::Bool(true)) {
        out.insert("warned".into(), Value::Bool(true));
    }
    Value::Object(out)
}

/// All text in which an id can stand that was not generated.
fn known_text(scenario: &Scenario) -> String {
    let files = scenario.files.iter().chain(scenario.requests.iter().flat_map(|request| &request.before));
    let files: Vec<String> =
        files.filter(|planted| planted.kind != Kind::Remove).map(|planted| planted.name.clone()).collect();
    let requests = scenario.requests.iter().flat_map(|request| std::iter::once(request).chain(&request.meanwhile));
    let requests: Vec<String> = requests
        .map(|request| {
            let cookie = match &request.cookie {
                Cookie::None => String::new(),
                Cookie::One(text) => text.clone(),
                Cookie::Lines(lines) => lines.join("\n"),
            };
            format!("{cookie}\n{}\n{}\n", request.query, Value::Array(request.ops.clone())).replace("%2C", ",")
        })
        .collect();
    format!("{}\n{}", files.join("\n"), requests.join("\n"))
}

/// A directory planted without permissions would outlive the test of anybody but root.
fn make_removable(save_path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700));
    let _ = open(save_path);
    for entry in std::fs::read_dir(save_path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = open(&entry.path());
        }
    }
}
