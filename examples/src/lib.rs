//! Small programs on cloakroom. The programs themselves are this package's examples, beside this folder.
