//! The root slot in a PKCS#11 token, on SoftHSM: the slot by itself, PINs, the whole cycle with the built program, what happens when
//! something stops in the middle, moving the root, and what an old copy of the token can do. What no SoftHSM does by itself (a
//! connection that breaks, a PIN about to be locked, a token without AES-GCM, another maker) a module in front of it does.

mod burnt;
mod cycle;
mod moving;
mod pin;
mod signing;
mod slot;
mod trouble;
