//! The parts of RFC 3161 and RFC 5035 that are read and written here; what is CMS and X.509 comes from crates. Pure.

use chrono::{DateTime, NaiveDateTime, Utc};
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerInfo};
use der::asn1::{BitString, Int, ObjectIdentifier, OctetString};
use der::{Any, Decode as _, Encode as _, Sequence, Tag, Tagged as _};
use x509_cert::ext::Extensions;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::{MAX_REPLY_BYTES, StampError};
use crate::log::tree::Hash;

/// `id-sha256`.
pub(super) const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
/// `id-sha384`.
pub(super) const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
/// `id-sha512`.
pub(super) const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
/// `id-signedData`.
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// `id-ct-TSTInfo`.
pub(super) const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");

/// What each failure bit means.
const FAILURES: [(usize, &str); 8] = [
    (0, "it does not support the hash algorithm"),
    (2, "it does not permit the request"),
    (5, "it could not read the request"),
    (14, "its clock is not available"),
    (15, "it does not know the policy"),
    (16, "it does not know the extension"),
    (17, "it cannot say how exact its time is"),
    (25, "it has a fault of its own"),
];

/// A hash with the name of its algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub struct Imprint {
    hash_algorithm: AlgorithmIdentifierOwned,
    hashed_message: OctetString,
}

impl Imprint {
    /// That of a SHA-256 value.
    pub(super) fn of(hash: Hash) -> Result<Self, StampError> {
        let hash_algorithm = AlgorithmIdentifierOwned { oid: SHA256, parameters: None };
        let hashed_message = OctetString::new(hash).map_err(|_| StampError::Malformed("a hash"))?;
        Ok(Self { hash_algorithm, hashed_message })
    }

    pub(super) fn is(&self, hash: Hash) -> bool {
        self.hash_algorithm.oid == SHA256 && self.hashed_message.as_bytes() == hash
    }
}

/// `TimeStampReq`.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub struct Request {
    pub(super) version: u8,
    pub(super) message_imprint: Imprint,
    pub(super) nonce: u64,
    pub(super) cert_req: bool,
}

/// `TimeStampResp`.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub struct Reply {
    status: StatusInfo,
    #[asn1(optional = "true")]
    token: Option<ContentInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
struct StatusInfo {
    status: u8,
    /// Words of the authority, which are not repeated.
    #[asn1(optional = "true")]
    words: Option<Vec<Any>>,
    #[asn1(optional = "true")]
    failure: Option<BitString>,
}

impl Reply {
    /// The token of a reply that grants one.
    pub fn read_granted(bytes: &[u8]) -> Result<ContentInfo, StampError> {
        if bytes.len() > MAX_REPLY_BYTES {
            return Err(StampError::Malformed("longer than any time stamp"));
        }
        let reply = Self::from_der(bytes).map_err(|_| StampError::Malformed("not a TimeStampResp"))?;
        // 0 granted, 1 granted with modifications.
        if reply.status.status > 1 {
            let failure = reply.status.failure.as_ref();
            let is_set = |bit: usize| failure.and_then(|bits| bits.bits().nth(bit)).unwrap_or(false);
            let why = FAILURES.iter().find(|(bit, _)| is_set(*bit)).map_or("it does not say why", |(_, why)| why);
            return Err(StampError::NotGranted { status: reply.status.status, why });
        }
        reply.token.ok_or(StampError::Malformed("granted, and no token in it"))
    }
}

/// `TSTInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub struct TstInfo {
    version: u8,
    policy: ObjectIdentifier,
    pub(super) message_imprint: Imprint,
    serial_number: Int,
    /// Authorities write fractions of a second, which the crate's own type does not read.
    gen_time: Any,
    #[asn1(optional = "true")]
    accuracy: Option<Accuracy>,
    #[asn1(default = "Default::default")]
    ordering: bool,
    #[asn1(optional = "true")]
    nonce: Option<Int>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    tsa: Option<Any>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
struct Accuracy {
    #[asn1(optional = "true")]
    seconds: Option<u64>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    millis: Option<u16>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    micros: Option<u16>,
}

impl TstInfo {
    /// Whether it carries this nonce.
    pub(super) fn answers(&self, nonce: u64) -> bool {
        let bytes = |encoded: der::Result<Vec<u8>>| encoded.ok();
        let ours = bytes(nonce.to_der());
        ours.is_some() && self.nonce.as_ref().and_then(|nonce| bytes(nonce.to_der())) == ours
    }

    /// The time that it says, cut to milliseconds.
    pub(super) fn time(&self) -> Result<DateTime<Utc>, StampError> {
        let wrong = StampError::Malformed("its time");
        if self.gen_time.tag() != Tag::GeneralizedTime {
            return Err(wrong);
        }
        let text = std::str::from_utf8(self.gen_time.value()).ok().and_then(|text| text.strip_suffix('Z'));
        let Some(text) = text else { return Err(wrong) };
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if seconds.len() != 14 || !is_digits(seconds) || !is_digits(fraction) || fraction.len() > 9 {
            return Err(wrong);
        }
        let millis: i64 = format!("{fraction:0<3}")[..3].parse().unwrap_or(0);
        let at = NaiveDateTime::parse_from_str(seconds, "%Y%m%d%H%M%S").map_err(|_| wrong)?;
        Ok(at.and_utc() + chrono::TimeDelta::milliseconds(millis))
    }
}

/// A `TimeStampToken`, taken apart.
#[derive(Debug, Clone)]
pub struct Token {
    pub(super) signed: SignedData,
    pub(super) signer: SignerInfo,
    /// The bytes of the `TSTInfo`, which the signed attributes name by digest.
    pub(super) content: Vec<u8>,
    pub(super) info: TstInfo,
}

impl Token {
    /// Takes a token apart. Nothing is verified here but its shape.
    pub(super) fn of(token: &ContentInfo) -> Result<Self, StampError> {
        let malformed = StampError::Malformed;
        if token.content_type != SIGNED_DATA {
            return Err(malformed("not signed data"));
        }
        let signed: SignedData = token.content.decode_as().map_err(|_| malformed("its signed data"))?;
        if signed.encap_content_info.econtent_type != TST_INFO {
            return Err(malformed("something else than a time stamp is signed"));
        }
        let content = signed.encap_content_info.econtent.as_ref().ok_or(malformed("nothing is signed"))?;
        let content: OctetString = content.decode_as().map_err(|_| malformed("its content"))?;
        let content = content.into_bytes();
        let info = TstInfo::from_der(&content).map_err(|_| malformed("its TSTInfo"))?;
        if info.version != 1 {
            return Err(malformed("its version"));
        }
        if info.extensions.iter().flatten().any(|extension| extension.critical) {
            return Err(malformed("an extension that must be understood and is not known"));
        }
        let [signer] = signed.signer_infos.0.as_slice() else { return Err(malformed("not exactly one signer")) };
        let signer = signer.clone();
        Ok(Self { signed, signer, content, info })
    }
}

/// `SigningCertificate` (RFC 2634): SHA-1 of the signer's certificate. It only names the certificate; the signature is over this name.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct SigningCertificate {
    pub(super) certificates: Vec<CertificateId>,
    #[asn1(optional = "true")]
    policies: Option<Any>,
}

#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct CertificateId {
    pub(super) hash: OctetString,
    #[asn1(optional = "true")]
    issuer_serial: Option<Any>,
}

/// `SigningCertificateV2` (RFC 5035): the same with a hash of choice, SHA-256 unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct SigningCertificateV2 {
    pub(super) certificates: Vec<CertificateIdV2>,
    #[asn1(optional = "true")]
    policies: Option<Any>,
}

#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct CertificateIdV2 {
    #[asn1(optional = "true")]
    pub(super) algorithm: Option<AlgorithmIdentifierOwned>,
    pub(super) hash: OctetString,
    #[asn1(optional = "true")]
    issuer_serial: Option<Any>,
}
