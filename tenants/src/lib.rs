//! Who may do what, and how much: listener policy, principals.
