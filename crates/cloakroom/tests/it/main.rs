//! What users depend on: opening a store by URL or php.ini, the PHP facade, and that nothing secret gets out.

mod connect;
mod leaks;
mod php;
