//! Whom a TLS connection is made with: certificate authorities of the host and of one registry, client certificates.
//!
//! Called once for each host that is asked. Folders of certificates are those of containers-certs.d(5).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// What a registry's folder adds.
#[derive(Debug, Default)]
pub struct Certificates {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Certificates {
    /// What `folder` has, or else the first of the usual folders for `host`.
    ///
    /// # Errors
    /// If a certificate cannot be read, or one lacks its key.
    pub fn load(folder: Option<&Path>, host: &str, home: Option<&Path>) -> Result<Self> {
        if let Some(folder) = folder {
            return Self::of_folder(folder)?
                .with_context(|| format!("{} does not exist", folder.display()));
        }
        let of_home = home.map(|home| home.join(".config/containers/certs.d"));
        let usual = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        for folders in of_home.into_iter().chain(usual) {
            if let Some(found) = Self::of_folder(&folders.join(host))? {
                return Ok(found);
            }
        }
        Ok(Self::default())
    }

    fn of_folder(folder: &Path) -> Result<Option<Self>> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
        };
        let mut found = Self::default();
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.authorities.extend(certificates(&path)?),
                Some("cert") => {
                    let key = path.with_extension("key");
                    let key = PrivateKeyDer::from_pem_file(&key)
                        .with_context(|| format!("read client key {}", key.display()))?;
                    found.client = Some((certificates(&path)?, key));
                }
                _ => {}
            }
        }
        Ok(Some(found))
    }

    /// How connections are made; without `verify` to whomever answers.
    ///
    /// # Errors
    /// If a certificate cannot be used.
    pub fn client_config(self, verify: bool) -> Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .context("choose versions of TLS")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trust {
                authorities: verify
                    .then(|| self.verifier(&provider))
                    .transpose()?
                    .flatten(),
                own: self.authorities,
                verify,
                provider,
            }));
        match self.client {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .context("use the client certificate"),
            None => Ok(builder.with_no_client_auth()),
        }
    }

    /// `None` if the host knows no authority, and the registry's folder neither.
    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<WebPkiServerVerifier>>> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        for authority in &self.authorities {
            roots
                .add(authority.clone())
                .context("use the registry's certificate authority")?;
        }
        if roots.is_empty() {
            return Ok(None);
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .context("use the certificate authorities")
            .map(Some)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let found = read().with_context(|| format!("read certificates of {}", path.display()))?;
    if found.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(found)
}

/// Decides whether a server is the one that was meant.
#[derive(Debug)]
struct Trust {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    /// A registry's own certificate may stand where its authority's does, as docker's manual has it for self-signed
    /// ones; those are authorities by their own word, which webpki takes for no server.
    own: Vec<CertificateDer<'static>>,
    verify: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.verify {
            return Ok(ServerCertVerified::assertion());
        }
        if self.own.iter().any(|own| own == end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        match &self.authorities {
            Some(authorities) => authorities.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
