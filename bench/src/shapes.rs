//! The types by which the sessions of the corpus are decoded and encoded; the same for every contender.

use cloakroom_php::{Bag, Format, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A session as one type, whatever lies around it.
pub trait Shape: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug {
    /// From a session that has been indexed, key by key.
    fn from_bag(bag: &Bag) -> Result<Self>;
    /// A new session, key by key.
    fn to_bag(&self, format: Format) -> Result<Bag>;
    /// The counter that every session has.
    fn n(&mut self) -> &mut i64;
}

macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Serialize, Deserialize, PartialEq, Debug)]
        #[expect(missing_docs, reason = "the corpus says what they are")]
        pub struct $name { $(pub $field: $type),* }

        impl Shape for $name {
            fn from_bag(bag: &Bag) -> Result<Self> {
                Ok($name { $($field: take(bag, stringify!($field))?),* })
            }
            fn to_bag(&self, format: Format) -> Result<Bag> {
                let mut bag = Bag::new(format);
                $(bag.set(stringify!($field), &self.$field)?;)*
                Ok(bag)
            }
            fn n(&mut self) -> &mut i64 {
                &mut self.n
            }
        }
    )* };
}

/// `null` and absent are one to `get`, and `Option` fields want them.
fn take<T: DeserializeOwned>(bag: &Bag, key: &str) -> Result<T> {
    match bag.get(key)? {
        Some(value) => Ok(value),
        None => cloakroom_php::from_slice(b"N;"),
    }
}

shapes! {
    /// Somebody who has logged in.
    Login {
        user_id: i64, user: String, email: String, roles: Vec<String>, csrf_token: String, remember: bool,
        logged_in_at: i64, locale: String, address: String, n: i64,
    }
    /// A shop's visitor.
    Shopper {
        user: Customer, cart: Vec<Line>, coupon: Option<String>, total: f64, csrf_token: String, flash: Vec<String>,
        n: i64,
    }
    /// A framework's session with objects and references.
    Framework { attributes: Attributes, meta: Meta, flashes: Vec<String>, n: i64 }
    /// A session that has grown out of hand: many small values.
    Dense { user: Customer, cart: Vec<Line>, seen: Vec<Visit>, n: i64 }
    /// A session that has grown out of hand: long texts.
    Texts { user: Customer, pages: Vec<Page>, n: i64 }
}

macro_rules! parts {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => { $(
        #[doc = concat!("Part of a session: a ", stringify!($name))]
        #[derive(Serialize, Deserialize, PartialEq, Debug)]
        #[expect(missing_docs, reason = "the corpus says what they are")]
        pub struct $name { $(pub $field: $type),* }
    )* };
}

parts! {
    Customer { id: i64, name: String, email: String, newsletter: bool }
    Line { sku: i64, title: String, price: f64, quantity: i64, options: Choice, gift: Option<String> }
    Choice { color: String, size: String }
    Attributes {
        csrf_checkout: String, csrf_account: String, token: Token, basket: Basket, history: Vec<Visit>, last: Visit,
    }
    Token { user: User, firewall: String, roles: Vec<String>, attributes: Vec<String> }
    User { id: i64, email: String, password: String, roles: Vec<String>, enabled: bool, profile: Option<String> }
    Basket { lines: Vec<BasketLine>, owner: User, coupon: Option<String> }
    BasketLine { product: Product, quantity: i64, price: Money }
    Product { id: i64, title: String, slug: String, tax: f64 }
    Money { amount: String, currency: Currency }
    Currency { code: String }
    Visit { url: String, method: String, at: f64, status: i64 }
    Meta { created: i64, updated: i64, lifetime: i64 }
    Page { url: String, etag: String, body: String }
}
