//! Who signed a time stamp, and whether that may be believed. The cryptography is the program's own provider's.

use aws_lc_rs::digest::{self, Algorithm};
use chrono::{DateTime, Utc};
use cms::cert::CertificateChoices;
use cms::signed_data::SignerIdentifier;
use der::asn1::{ObjectIdentifier, OctetString};
use der::{Any, Decode as _, Encode as _};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, aws_lc_rs as by};
use x509_cert::Certificate;
use x509_cert::ext::pkix::{ExtendedKeyUsage, SubjectKeyIdentifier};

use super::asn1::{SHA256, SHA384, SHA512, SigningCertificate, SigningCertificateV2, TST_INFO, Token};
use super::{StampError, StampTrust};

const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SIGNING_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.12");
const SIGNING_CERTIFICATE_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const TIME_STAMPING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8");
/// The content of the same in DER.
const TIME_STAMPING_DER: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08];

/// How much of an authority's name is repeated.
const MOST_OF_A_NAME: usize = 200;
/// RSA with PKCS #1 v1.5: the hash is that of the digest algorithm, or named with it.
const RSA: [&str; 4] =
    ["1.2.840.113549.1.1.1", "1.2.840.113549.1.1.11", "1.2.840.113549.1.1.12", "1.2.840.113549.1.1.13"];
/// ECDSA with SHA-256, 384, 512.
const ECDSA: [&str; 3] = ["1.2.840.10045.4.3.2", "1.2.840.10045.4.3.3", "1.2.840.10045.4.3.4"];

/// What certificates of authorities may be signed with.
static OF_CERTIFICATES: &[&dyn SignatureVerificationAlgorithm] = &[
    by::ECDSA_P256_SHA256,
    by::ECDSA_P256_SHA384,
    by::ECDSA_P256_SHA512,
    by::ECDSA_P384_SHA256,
    by::ECDSA_P384_SHA384,
    by::ECDSA_P384_SHA512,
    by::ECDSA_P521_SHA256,
    by::ECDSA_P521_SHA384,
    by::ECDSA_P521_SHA512,
    by::RSA_PKCS1_2048_8192_SHA256,
    by::RSA_PKCS1_2048_8192_SHA384,
    by::RSA_PKCS1_2048_8192_SHA512,
    by::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    by::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    by::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// The certificate that signed a token.
pub(super) struct Signer {
    certificate: Certificate,
    der: CertificateDer<'static>,
}

/// Finds the signer of a token and checks its signature over the signed attributes, and those against the content.
pub(super) fn check(token: &Token, trust: &StampTrust) -> Result<Signer, StampError> {
    let signer = find(token, trust)?;
    let info = &token.signer;
    let hash = hash_of(&info.digest_alg.oid)?;
    let attributes = info.signed_attrs.as_ref().ok_or(StampError::Attributes("there are none"))?;
    let value = |oid: ObjectIdentifier| -> Option<&Any> {
        let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
        match (found.next().map(|attribute| attribute.values.as_slice()), found.next()) {
            (Some([value]), None) => Some(value),
            _ => None,
        }
    };
    let content_type = value(CONTENT_TYPE).and_then(|value| value.decode_as::<ObjectIdentifier>().ok());
    if content_type != Some(TST_INFO) {
        return Err(StampError::Attributes("the content type"));
    }
    let named = value(MESSAGE_DIGEST).and_then(|value| value.decode_as::<OctetString>().ok());
    let is_content = named.is_some_and(|named| named.as_bytes() == digest::digest(hash, &token.content).as_ref());
    if !is_content {
        return Err(StampError::Attributes("the digest of the content"));
    }
    if !signer.is_named(value(SIGNING_CERTIFICATE), value(SIGNING_CERTIFICATE_V2)) {
        return Err(StampError::Attributes("the signer's certificate"));
    }
    // What is signed is the SET itself, whatever tag it has in the message.
    let signed = attributes.to_der().map_err(|_| StampError::Malformed("its signed attributes"))?;
    let end = EndEntityCert::try_from(&signer.der).map_err(StampError::Chain)?;
    let tried = algorithms(&info.signature_algorithm.oid, &info.digest_alg.oid)?;
    let fits = tried.iter().any(|by| end.verify_signature(*by, &signed, info.signature.as_bytes()).is_ok());
    if fits { Ok(signer) } else { Err(StampError::WrongSignature) }
}

fn hash_of(oid: &ObjectIdentifier) -> Result<&'static Algorithm, StampError> {
    match *oid {
        SHA256 => Ok(&digest::SHA256),
        SHA384 => Ok(&digest::SHA384),
        SHA512 => Ok(&digest::SHA512),
        other => Err(StampError::Algorithm(other.to_string())),
    }
}

/// The algorithms that a signature may be by, given the hash; which of them, the key decides.
fn algorithms(
    signature: &ObjectIdentifier,
    hash: &ObjectIdentifier,
) -> Result<&'static [&'static dyn SignatureVerificationAlgorithm], StampError> {
    static OF_RSA: [&[&dyn SignatureVerificationAlgorithm]; 3] =
        [&[by::RSA_PKCS1_2048_8192_SHA256], &[by::RSA_PKCS1_2048_8192_SHA384], &[by::RSA_PKCS1_2048_8192_SHA512]];
    static OF_ECDSA: [&[&dyn SignatureVerificationAlgorithm]; 3] = [
        &[by::ECDSA_P256_SHA256, by::ECDSA_P384_SHA256, by::ECDSA_P521_SHA256],
        &[by::ECDSA_P256_SHA384, by::ECDSA_P384_SHA384, by::ECDSA_P521_SHA384],
        &[by::ECDSA_P256_SHA512, by::ECDSA_P384_SHA512, by::ECDSA_P521_SHA512],
    ];
    let unknown = || StampError::Algorithm(signature.to_string());
    let size = [SHA256, SHA384, SHA512].iter().position(|known| known == hash).ok_or_else(unknown)?;
    let name = signature.to_string();
    if let Some(at) = RSA.iter().position(|known| *known == name) {
        // One that names its hash must name the one that is used.
        return if at == 0 || at == size + 1 { Ok(OF_RSA[size]) } else { Err(unknown()) };
    }
    if ECDSA.get(size).is_some_and(|known| *known == name) { Ok(OF_ECDSA[size]) } else { Err(unknown()) }
}

/// The certificate that the token names as its signer's, among those that came with it and those that are trusted.
fn find(token: &Token, trust: &StampTrust) -> Result<Signer, StampError> {
    let came = token.signed.certificates.iter().flat_map(|set| set.0.iter()).filter_map(|choice| match choice {
        CertificateChoices::Certificate(certificate) => Some(certificate.clone()),
        CertificateChoices::Other(_) => None,
    });
    let trusted = trust.roots().filter_map(|root| Certificate::from_der(root).ok());
    let is_it = |certificate: &Certificate| match &token.signer.sid {
        SignerIdentifier::IssuerAndSerialNumber(named) => {
            let tbs = &certificate.tbs_certificate;
            tbs.issuer == named.issuer && tbs.serial_number == named.serial_number
        }
        SignerIdentifier::SubjectKeyIdentifier(named) => {
            let own = extension(certificate, SUBJECT_KEY_ID);
            own.and_then(|(_, value)| SubjectKeyIdentifier::from_der(value).ok()).is_some_and(|own| own == *named)
        }
    };
    let certificate = came.chain(trusted).find(is_it).ok_or(StampError::NoSigner)?;
    let der = certificate.to_der().map_err(|_| StampError::NoSigner)?;
    Ok(Signer { certificate, der: der.into() })
}

fn extension(certificate: &Certificate, oid: ObjectIdentifier) -> Option<(bool, &[u8])> {
    let all = certificate.tbs_certificate.extensions.as_ref()?;
    let found = all.iter().find(|extension| extension.extn_id == oid)?;
    Some((found.critical, found.extn_value.as_bytes()))
}

impl Signer {
    /// Whether the signed attributes name this certificate first, by whichever of the two they use; by both, if both are there.
    fn is_named(&self, v1: Option<&Any>, v2: Option<&Any>) -> bool {
        let by_v1 = v1.map(|value| {
            let named = value.decode_as::<SigningCertificate>().ok();
            let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &self.der);
            named.and_then(|named| Some(named.certificates.first()?.hash.as_bytes() == sha1.as_ref())).unwrap_or(false)
        });
        let by_v2 = v2.map(|value| {
            let named = value.decode_as::<SigningCertificateV2>().ok();
            let first = named.as_ref().and_then(|named| named.certificates.first());
            first.is_some_and(|first| {
                let hash = first.algorithm.as_ref().map_or(SHA256, |algorithm| algorithm.oid);
                hash_of(&hash).is_ok_and(|hash| digest::digest(hash, &self.der).as_ref() == first.hash.as_bytes())
            })
        });
        match (by_v1, by_v2) {
            (None, None) => false,
            (v1, v2) => v1.unwrap_or(true) && v2.unwrap_or(true),
        }
    }

    /// From when until when the certificate is valid.
    pub(super) fn valid(&self) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        let at = |time: x509_cert::time::Time| {
            let seconds = i64::try_from(time.to_unix_duration().as_secs()).ok()?;
            DateTime::from_timestamp(seconds, 0)
        };
        let valid = &self.certificate.tbs_certificate.validity;
        (at(valid.not_before), at(valid.not_after))
    }

    /// Whether the certificate is for time stamping alone, and led to a trusted one when it signed. Returns its subject, and the chain.
    pub(super) fn check_chain(
        &self,
        token: &Token,
        anchors: &[TrustAnchor<'_>],
        trust: &StampTrust,
        at: DateTime<Utc>,
    ) -> Result<(String, Vec<Vec<u8>>), StampError> {
        let usage = extension(&self.certificate, EXTENDED_KEY_USAGE);
        let (is_critical, usage) = usage.ok_or(StampError::Purpose)?;
        let usage = ExtendedKeyUsage::from_der(usage).map_err(|_| StampError::Purpose)?;
        if !is_critical || usage.0 != [TIME_STAMPING] {
            return Err(StampError::Purpose);
        }
        let came = token.signed.certificates.iter().flat_map(|set| set.0.iter());
        let between: Vec<CertificateDer<'_>> =
            came.filter_map(|choice| choice.to_der().ok()).map(CertificateDer::from).collect();
        let seconds = u64::try_from(at.timestamp()).map_err(|_| StampError::Malformed("its time"))?;
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let end = EndEntityCert::try_from(&self.der).map_err(StampError::Chain)?;
        // The signer's own was checked; certificates between may name none, but no other.
        let usage = KeyUsage::required_if_present(TIME_STAMPING_DER);
        let path = end
            .verify_for_usage(OF_CERTIFICATES, anchors, &between, time, usage, None, None)
            .map_err(StampError::Chain)?;
        let mut chain = vec![self.der.to_vec()];
        chain.extend(path.intermediate_certificates().map(|certificate| certificate.der().to_vec()));
        let root = anchors.iter().position(|anchor| anchor == path.anchor());
        chain.extend(root.and_then(|at| trust.roots().nth(at)).map(<[u8]>::to_vec));
        let name = self.certificate.tbs_certificate.subject.to_string();
        Ok((name.chars().filter(|letter| !letter.is_control()).take(MOST_OF_A_NAME).collect(), chain))
    }
}
