package verityfile

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/smallstep/pkcs7"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// certificateDirs are systemd's directories with certificates of those who may sign root
// hashes. A file hides those of the same name in later directories.
var certificateDirs = []string{"/etc/verity.d", "/run/verity.d", "/usr/lib/verity.d"}

// Limits of files, in bytes, of the number of certificates, and of the elements of a signature.
const (
	maxSignature    = 1 << 20
	maxCertificate  = 64 << 10
	maxCertificates = 1000
	maxElements     = 10000 // a certificate has about 100
	maxDepth        = 32
)

// checkSignature returns nil if a PKCS#7 signature of the root hash, in hexadecimal digits, is
// valid, and one of the certificates has made it. As for systemd and the kernel, certificates
// in the signature do not count, and the certificates of the host are trusted as they are: no
// chain is followed, and they do not expire.
func checkSignature(root, signature []byte, certificates []*x509.Certificate) error {
	err := checkDER(signature)
	var p *pkcs7.PKCS7
	if err == nil {
		p, err = pkcs7.Parse(signature)
	}
	if err == nil {
		p.Content, p.Certificates = []byte(hex.EncodeToString(root)), certificates
		err = p.Verify()
	}
	if err != nil {
		return fmt.Errorf("signature of the root hash: %w: %w", err, unix.EKEYREJECTED)
	}
	return nil
}

// checkDER returns an error for a signature that package pkcs7 would work on for long: it copies the
// content of each element into the element around it, and takes indefinite lengths, which DER does
// not have.
func checkDER(signature []byte) error {
	var whole asn1.RawValue
	if _, err := asn1.Unmarshal(signature, &whole); err != nil {
		return err
	}
	left := maxElements
	return checkElements(whole.FullBytes, maxDepth, &left)
}

// checkElements checks elements of DER and those within them. left is the number of elements that
// are still allowed.
func checkElements(text []byte, depth int, left *int) error {
	if depth == 0 {
		return fmt.Errorf("elements in more than %d others", maxDepth)
	}
	for len(text) > 0 {
		if *left--; *left < 0 {
			return fmt.Errorf("more than %d elements", maxElements)
		}
		var element asn1.RawValue
		rest, err := asn1.Unmarshal(text, &element)
		if err == nil && element.IsCompound {
			err = checkElements(element.Bytes, depth-1, left)
		}
		if err != nil {
			return err
		}
		text = rest
	}
	return nil
}

// hostCertificates returns the certificates in the files *.crt of directories.
func hostCertificates(dirs []string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	seen := map[string]bool{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, entry := range entries {
			name := entry.Name()
			if !strings.HasSuffix(name, ".crt") || seen[name] {
				continue
			}
			if seen[name] = true; len(seen) > maxCertificates {
				return nil, fmt.Errorf("more than %d certificates: %w", maxCertificates, unix.E2BIG)
			}
			list, err := readCertificates(filepath.Join(dir, name))
			if err != nil {
				return nil, err
			}
			all = append(all, list...)
		}
	}
	if len(all) == 0 {
		err := fmt.Errorf("no certificate in %s: %w", strings.Join(dirs, ", "), unix.ENOKEY)
		return nil, hint.Add(err, "put the certificate of the signer there, in a file with the name *.crt")
	}
	return all, nil
}

// readCertificates returns the certificates in a PEM file. An empty file, or a link to
// /dev/null, has none.
func readCertificates(path string) (list []*x509.Certificate, err error) {
	text, err := readSmall(path, maxCertificate)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return list, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, c)
	}
}
