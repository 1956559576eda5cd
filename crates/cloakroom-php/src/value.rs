//! PHP's values as a tree: what `unserialize()` makes of bytes (`Zend/zend_types.h`).
//!
//! Nothing here recurses, `Drop`, `Clone`, `PartialEq` and `Debug` included: a value may be 4096 levels deep.
//! `Debug` shows the shape and never the content, because sessions end up in logs.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use crate::array::Array;

/// A string as PHP has it: bytes, mostly UTF-8.
#[derive(Clone)]
pub struct PhpStr(Text);

/// As many bytes as make it no larger.
const SHORT: usize = 22;

/// Short strings lie in place, as nearly all keys are short.
#[derive(Clone)]
enum Text {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

impl PhpStr {
    #[inline]
    fn short(bytes: &[u8]) -> Option<Self> {
        let mut text = [0; SHORT];
        text.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self(Text::Short(u8::try_from(bytes.len()).ok()?, text)))
    }

    /// The bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Short(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Text::Long(bytes) => bytes,
        }
    }

    /// The text, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self).ok()
    }

    /// The bytes, owned.
    pub fn into_bytes(self) -> Vec<u8> {
        match self.0 {
            Text::Short(..) => self.as_bytes().to_vec(),
            Text::Long(bytes) => bytes.into_vec(),
        }
    }
}

impl Default for PhpStr {
    fn default() -> Self {
        Self(Text::Short(0, [0; SHORT]))
    }
}

impl PartialEq for PhpStr {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for PhpStr {}

impl PartialOrd for PhpStr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PhpStr {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for PhpStr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl Deref for PhpStr {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for PhpStr {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for PhpStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl From<&[u8]> for PhpStr {
    #[inline]
    fn from(bytes: &[u8]) -> Self {
        Self::short(bytes).unwrap_or_else(|| Self(Text::Long(bytes.into())))
    }
}

impl From<&str> for PhpStr {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<String> for PhpStr {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<Vec<u8>> for PhpStr {
    fn from(bytes: Vec<u8>) -> Self {
        Self::short(&bytes).unwrap_or_else(|| Self(Text::Long(bytes.into())))
    }
}

impl<const N: usize> From<&[u8; N]> for PhpStr {
    fn from(bytes: &[u8; N]) -> Self {
        bytes[..].into()
    }
}

/// A value of PHP.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// `null`
    #[default]
    Null,
    /// `true` and `false`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `float`; like PHP, `NAN` is unequal to itself
    Float(f64),
    /// `string`
    String(PhpStr),
    /// `array`
    Array(Array),
    /// An object of any class, as its properties
    Object(Object),
    /// A case of an enum
    Enum(Box<Enum>),
    /// An object of a class that writes itself, the `C:` form
    Custom(Box<Custom>),
    /// A place that is the same as another
    Reference(Reference),
}

/// A case of an enum: its class and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enum {
    /// The enum, without a leading backslash.
    pub class: PhpStr,
    /// The name of the case, not its value.
    pub case: PhpStr,
}

/// An object that wrote itself (`Serializable::serialize`): only its class can read the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custom {
    /// The class.
    pub class: PhpStr,
    /// What the class wrote.
    pub payload: PhpStr,
}

/// A place that is the same as an earlier one of the value that was unserialized.
///
/// Places are numbered as PHP numbers them, from 1 for the outermost value, in the order in which they begin; a
/// place that is an alias takes no number, all others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reference {
    /// `R:`: the same variable; assigning to one changes the other.
    Alias(u64),
    /// `r:`: another handle of the same object.
    Handle(u64),
}

/// An object: its class and its properties by their full names.
///
/// Protected properties are called `\0*\0name`, private ones `\0Class\0name`, as PHP stores them.
pub struct Object(Box<Inner>);

struct Inner {
    class: PhpStr,
    properties: Array,
}

impl Object {
    /// An object of this class with these properties.
    pub fn new(class: impl Into<PhpStr>, properties: Array) -> Self {
        Self(Box::new(Inner { class: class.into(), properties }))
    }

    /// The class.
    pub fn class(&self) -> &PhpStr {
        &self.0.class
    }

    /// The properties in their order, by full name. Integer keys are what `__serialize()` returned.
    pub fn properties(&self) -> &Array {
        &self.0.properties
    }

    /// The properties, to be changed.
    pub fn properties_mut(&mut self) -> &mut Array {
        &mut self.0.properties
    }

    /// A property by its bare name, whatever its visibility; the first of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.properties.iter().find_map(|(key, value)| match key {
            crate::Key::Str(full) if bare_name(full) == name.as_bytes() => Some(value),
            _ => None,
        })
    }
}

/// A property's name without `\0*\0` or `\0Class\0` before it.
pub(crate) fn bare_name(full: &[u8]) -> &[u8] {
    match full {
        [0, rest @ ..] => memchr::memchr(0, rest).map_or(full, |end| &rest[end + 1..]),
        _ => full,
    }
}

impl Clone for Object {
    fn clone(&self) -> Self {
        Self::new(self.0.class.clone(), self.0.properties.clone())
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.0.class == other.0.class && self.0.properties == other.0.properties
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", String::from_utf8_lossy(&self.0.class), self.0.properties.len())
    }
}

macro_rules! values_from {
    ($($t:ty => $variant:ident),* $(,)?) => {$(
        impl From<$t> for Value {
            fn from(value: $t) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}
values_from!(bool => Bool, i32 => Int, i64 => Int, u32 => Int, f64 => Float, &str => String, String => String,
    &[u8] => String, PhpStr => String, Array => Array, Object => Object, Reference => Reference);

impl Value {
    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(value) = self { Some(*value) } else { None }
    }

    /// The float, if it is one.
    pub fn as_float(&self) -> Option<f64> {
        if let Self::Float(value) = self { Some(*value) } else { None }
    }

    /// The bytes of a string.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::String(value) = self { Some(value) } else { None }
    }

    /// The text of a string that is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(value) = self { value.as_str() } else { None }
    }

    /// The array, if it is one.
    pub fn as_array(&self) -> Option<&Array> {
        if let Self::Array(value) = self { Some(value) } else { None }
    }

    /// The object, if it is one that has properties.
    pub fn as_object(&self) -> Option<&Object> {
        if let Self::Object(value) = self { Some(value) } else { None }
    }

    /// What is nested in this value.
    pub(crate) fn elements(&self) -> Option<&Array> {
        match self {
            Self::Array(array) => Some(array),
            Self::Object(object) => Some(&object.0.properties),
            _ => None,
        }
    }

    pub(crate) fn elements_mut(&mut self) -> Option<&mut Array> {
        match self {
            Self::Array(array) => Some(array),
            Self::Object(object) => Some(&mut object.0.properties),
            _ => None,
        }
    }

    /// Equality of all but the elements, and of their number.
    pub(crate) fn same_head(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Array(a), Self::Array(b)) => a.len() == b.len(),
            (Self::Object(a), Self::Object(b)) => {
                a.0.class == b.0.class && a.0.properties.len() == b.0.properties.len()
            }
            // None of these nests, so the derived comparison goes no deeper.
            (a, b) => a.elements().is_none() && b.elements().is_none() && a == b,
        }
    }

    /// The value with its elements left out.
    pub(crate) fn shallow(&self) -> Self {
        match self {
            Self::Array(_) => Self::Array(Array::new()),
            Self::Object(object) => Self::Object(Object::new(object.0.class.clone(), Array::new())),
            other => other.clone(),
        }
    }
}
