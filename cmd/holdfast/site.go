package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// site is the gateway's own CA and the server certificate that it signs.
type site struct {
	dir   string
	names []string // DNS names and addresses that the server is reached by
	now   func() time.Time
}

const (
	year       = 365 * 24 * time.Hour
	caLife     = 20 * year
	serverLife = 5 * year
	renewAt    = serverLife * 3 / 10 // when less than this remains
)

// Certificates begin here and never end before twenty and five years after: the
// clock of a board without a battery may say 1970 when it makes them, and so may
// the clock of a device that checks them.
var epoch = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// ensure makes what is missing or old, and names the files it made.
func (s *site) ensure() (made []string, err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder for certificates: %w", err)
	}
	caKey, err := s.keyFor("ca")
	if err != nil {
		return nil, err
	}
	ca, err := s.certificate("ca", caKey)
	if err != nil {
		return nil, err
	}
	if ca == nil {
		if ca, err = s.sign("ca", s.caTemplate(), nil, caKey, caKey); err != nil {
			return nil, err
		}
		made = append(made, s.file("ca.pem"))
	}
	key, err := s.keyFor("server")
	if err != nil {
		return made, err
	}
	cert, err := s.certificate("server", key)
	if err != nil {
		return made, err
	}
	if cert == nil || !s.good(cert, ca) {
		if _, err = s.sign("server", s.serverTemplate(), ca, key, caKey); err != nil {
			return made, err
		}
		made = append(made, s.file("server.pem"))
	}
	return made, nil
}

// good says whether the server's certificate can stay.
func (s *site) good(cert, ca *x509.Certificate) bool {
	if cert.NotAfter.Sub(s.now()) < renewAt || cert.CheckSignatureFrom(ca) != nil {
		return false
	}
	for _, n := range s.names {
		if cert.VerifyHostname(n) != nil && !slices.Contains(cert.DNSNames, n) {
			return false
		}
	}
	return true
}

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

// keyFor reads a key, or makes it if there is neither key nor certificate.
func (s *site) keyFor(name string) (*ecdsa.PrivateKey, error) {
	file, cert := s.file(name+".key"), s.file(name+".pem")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(cert); err == nil {
			return nil, siteError(file, "is missing, but its certificate is there", cert)
		}
		return s.makeKey(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, siteError(file, "is not PEM", file, cert)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	ec, ok := key.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, siteError(file, "is not an ECDSA key", file, cert)
	}
	return ec, nil
}

func (s *site) makeKey(file string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return key, writeFile(file, text, 0o600)
}

// certificate reads a certificate; nil if there is none yet.
func (s *site) certificate(name string, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	file := s.file(name + ".pem")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, siteError(file, "is not PEM", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, siteError(file, "is not a certificate", file)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, siteError(file, "does not belong to "+s.file(name+".key"), file)
	}
	return cert, nil
}

func (s *site) sign(name string, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate %s: %w", name, err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if name != "ca" { // servers send the chain: some clients want it whole
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: parent.Raw})...)
	}
	if err := writeFile(s.file(name+".pem"), text, 0o644); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func (s *site) caTemplate() *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Holdfast site CA", Organization: []string{hostname()}},
		NotBefore: epoch, NotAfter: s.end(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func (s *site) serverTemplate() *x509.Certificate {
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: hostname()},
		NotBefore: epoch, NotAfter: s.end(serverLife),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range s.names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	return t
}

func (s *site) end(life time.Duration) time.Time {
	from := s.now()
	if from.Before(epoch) {
		from = epoch
	}
	return from.Add(life).UTC().Truncate(time.Second)
}

// namesOf gives the names that this machine is reached by: its host name,
// localhost, the addresses it has now, and more.
func namesOf(more []string) []string {
	names := []string{"localhost"}
	if h := strings.ToLower(hostname()); isHost(h) {
		names = append(names, h)
		if !strings.Contains(h, ".") {
			names = append(names, h+".local") // as mDNS announces it
		}
	}
	addrs, _ := net.InterfaceAddrs() // none is an answer, too
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() { // those need a zone, which certificates do not know
			names = append(names, n.IP.String())
		}
	}
	for _, n := range more {
		names = append(names, strings.ToLower(n))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func hostname() string {
	h, err := os.Hostname()
	if err != nil || h == "" {
		return "holdfast"
	}
	return h
}

// writeFile puts a whole file in place, or none: a reader never sees half of it,
// after a power cut neither.
func writeFile(path string, text []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the first error is the one to tell
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	_, err = bytes.NewReader(text).WriteTo(f)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
