//! The shop: what an application's handlers look like with cloakroom's three verbs.
//!
//! The handlers know nothing of the panel: they answer with a [`Reply`], and `trace.rs` makes a page of it when
//! the session is done with.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Form;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cloakroom::{Draft, Session};
use serde::{Deserialize, Serialize};

use crate::words::{Act, Language};

/// What the shop sells: the names, and the prices in cents. PHP reads the same file.
pub(crate) static MENU: LazyLock<Vec<(&str, i64)>> = LazyLock::new(|| {
    let lines = include_str!("menu.csv").lines();
    lines
        .filter_map(|line| line.split_once(','))
        .filter_map(|(name, price)| Some((name, price.parse().ok()?)))
        .collect()
});
/// How many of one thing a cart may hold.
const MOST: i64 = 99;
/// How long a name may be.
const LONGEST_NAME: usize = 40;

/// One line of the cart. In PHP it is `['name' => 'Funghi', 'price' => 890, 'qty' => 2]`, price in cents.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) price: i64,
    pub(crate) qty: i64,
}

/// What the page shows of a session.
#[derive(Clone, Debug)]
pub(crate) struct Shop {
    pub(crate) user: Option<String>,
    pub(crate) pizza: i64,
    pub(crate) cart: Vec<Item>,
}

impl Shop {
    fn of(s: &Draft) -> cloakroom::Result<Shop> {
        Ok(Shop { user: s.get("user")?, pizza: s.get("pizza")?.unwrap_or(0), cart: s.get("cart")?.unwrap_or_default() })
    }

    /// What the cart costs, in cents.
    pub(crate) fn total(&self) -> i64 {
        self.cart.iter().map(|item| item.price.saturating_mul(item.qty)).fold(0, i64::saturating_add)
    }
}

/// A handler's answer: what it did, and what is to be seen.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) language: Language,
    pub(crate) act: Act,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Shop(Shop),
    /// The page after a logout.
    Bye,
    /// The shop as PHP wrote it.
    Html(String),
    /// Look there: so a form that was sent is never sent again by a reload.
    SeeOther(String),
}

impl Reply {
    fn page(act: Act, content: Content) -> Reply {
        Reply { language: Language::Rust, act, content }
    }

    fn back(act: Act) -> Reply {
        Reply::page(act, Content::SeeOther("/".into()))
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = match &self.content {
            Content::SeeOther(to) => {
                let location = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
                (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
            }
            _ => StatusCode::OK.into_response(),
        };
        response.extensions_mut().insert(self);
        response
    }
}

pub(crate) fn routes() -> Router {
    Router::new()
        .route("/", get(look))
        .route("/bye", get(bye))
        .route("/pizza", post(pizza))
        .route("/cart/add", post(add))
        .route("/cart/take", post(take))
        .route("/login", post(login))
        .route("/logout", post(logout))
}

/// The shop. A browser without a valid mark gets one.
async fn look(session: Session) -> cloakroom::Result<Reply> {
    let seen = session.read().await?;
    if !seen.is_empty() {
        return Ok(Reply::page(Act::Look, Content::Shop(Shop::of(&seen)?)));
    }
    let act = if session.cookie().text().is_none() { Act::First } else { Act::Stranger };
    let mut s = session.start().await?;
    s.set("pizza", &0)?;
    s.set("cart", &Vec::<Item>::new())?;
    Ok(Reply::page(act, Content::Shop(Shop::of(&s)?)))
}

async fn pizza(session: Session) -> cloakroom::Result<Reply> {
    session
        .update(|s| {
            let pizza = s.get::<i64>("pizza")?.unwrap_or(0);
            s.set("pizza", &pizza.saturating_add(1))
        })
        .await?;
    Ok(Reply::back(Act::Pizza))
}

#[derive(Debug, Deserialize)]
struct Choice {
    name: String,
}

/// The form gives a name only; what it costs, the menu says.
async fn add(session: Session, Form(choice): Form<Choice>) -> cloakroom::Result<Response> {
    let Some(&(name, price)) = MENU.iter().find(|(name, _)| *name == choice.name) else {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, "this is not on the menu\n").into_response());
    };
    session
        .update(|s| {
            let mut cart: Vec<Item> = s.get("cart")?.unwrap_or_default();
            match cart.iter_mut().find(|item| item.name == name) {
                Some(item) => item.qty = item.qty.saturating_add(1).min(MOST),
                None => cart.push(Item { name: name.into(), price, qty: 1 }),
            }
            s.set("cart", &cart)
        })
        .await?;
    Ok(Reply::back(Act::Add).into_response())
}

async fn take(session: Session, Form(choice): Form<Choice>) -> cloakroom::Result<Reply> {
    session
        .update(|s| {
            let mut cart: Vec<Item> = s.get("cart")?.unwrap_or_default();
            if let Some(item) = cart.iter_mut().find(|item| item.name == choice.name) {
                item.qty = item.qty.saturating_sub(1);
            }
            cart.retain(|item| item.qty > 0);
            s.set("cart", &cart)
        })
        .await?;
    Ok(Reply::back(Act::Take))
}

/// Any name will do. What matters is the order: the old id is dead before the session knows who it is.
async fn login(session: Session, Form(choice): Form<Choice>) -> cloakroom::Result<Response> {
    let name: String = choice.name.trim().chars().take(LONGEST_NAME).collect();
    if name.is_empty() {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, "a name, please\n").into_response());
    }
    let mut s = session.start().await?;
    s.regenerate_id(true).await?;
    s.set("user", &name)?;
    Ok(Reply::back(Act::Login).into_response())
}

async fn logout(session: Session) -> cloakroom::Result<Reply> {
    session.destroy().await?;
    Ok(Reply::page(Act::Logout, Content::SeeOther("/bye".into())))
}

/// Does not touch the session, so that the browser stays without a mark until it comes in again.
async fn bye() -> Reply {
    Reply::page(Act::Bye, Content::Bye)
}
