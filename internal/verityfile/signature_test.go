package verityfile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"runtime"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
	"golang.org/x/sys/unix"
)

// signed returns a signature of a root hash, and the certificate of its signer.
func signed(t testing.TB, root []byte) (signature []byte, certificate *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signer"}, NotAfter: time.Now().Add(time.Hour)}
	text, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if certificate, err = x509.ParseCertificate(text); err != nil {
		t.Fatal(err)
	}
	data, err := pkcs7.NewSignedData([]byte(hex.EncodeToString(root)))
	if err == nil {
		err = data.AddSigner(certificate, key, pkcs7.SignerInfoConfig{})
	}
	if err == nil {
		data.Detach()
		signature, err = data.Finish()
	}
	if err != nil {
		t.Fatal(err)
	}
	return signature, certificate
}

// No bytes are a valid signature of another root hash, and none need much memory.
func FuzzSignature(f *testing.F) {
	root, other := make([]byte, 32), bytes.Repeat([]byte{1}, 32)
	signature, certificate := signed(f, root)
	if err := checkSignature(root, signature, []*x509.Certificate{certificate}); err != nil {
		f.Fatal(err)
	}
	f.Add(signature)
	f.Add([]byte{asn1.TagSequence | 0x20, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, signature []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := checkSignature(other, signature, []*x509.Certificate{certificate})
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, unix.EKEYREJECTED) || n > openBytes {
			t.Errorf("%d bytes allocated, error %v", n, err)
		}
	})
}
