package luks

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A disk is a file that cryptsetup formats, with files for passphrases.
type disk struct {
	t    *testing.T
	path string
}

// newDisk makes an empty disk. It skips the test if cryptsetup is not
// installed.
func newDisk(t *testing.T, size int64) disk {
	t.Helper()
	if _, err := exec.LookPath("cryptsetup"); err != nil {
		ublktest.MachineLacks(t, "cryptsetup")
	}
	d := disk{t, filepath.Join(t.TempDir(), "disk.img")}
	if err := os.WriteFile(d.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.path, size); err != nil {
		t.Fatal(err)
	}
	return d
}

// file writes a file beside the disk and returns its path.
func (d disk) file(name, content string) string {
	d.t.Helper()
	path := filepath.Join(filepath.Dir(d.path), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// try runs cryptsetup with the options in one string, followed by other
// arguments and the disk.
func (d disk) try(options string, others ...string) ([]byte, error) {
	args := append(strings.Fields(options), "--batch-mode", "--disable-locks")
	args = append(args, others...)
	return exec.Command("cryptsetup", append(args, d.path)...).CombinedOutput()
}

// run is try for a command that must succeed.
func (d disk) run(options string, others ...string) string {
	d.t.Helper()
	out, err := d.try(options, others...)
	if err != nil {
		d.t.Fatalf("cryptsetup %s: %v\n%s", options, err, out)
	}
	return string(out)
}

// key returns the volume key from cryptsetup's dump.
func (d disk) key(passphraseFile string) string {
	d.t.Helper()
	out := d.run("luksDump --dump-volume-key --key-file " + passphraseFile)
	_, dump, found := strings.Cut(out, "dump:")
	if !found {
		d.t.Fatalf("no key in\n%s", out)
	}
	return strings.Join(strings.Fields(dump), "")
}

// open reads the whole image of the disk.
func (d disk) open() image {
	d.t.Helper()
	data, err := os.ReadFile(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	return image{data, int64(len(data))}
}

const (
	cheapPBKDF2 = " --pbkdf pbkdf2 --pbkdf-force-iterations 1000"
	cheapArgon2 = " --pbkdf-memory 1024 --pbkdf-parallel 4 --pbkdf-force-iterations 4"
)

// A volume formatted by cryptsetup opens with the key that cryptsetup dumps.
func TestCryptsetupFormats(t *testing.T) {
	tests := map[string]string{
		"LUKS1 256":            "--type luks1 -c aes-xts-plain64 -s 256 -h sha256" + cheapPBKDF2,
		"LUKS1 512":            "--type luks1 -c aes-xts-plain64 -s 512 -h sha256" + cheapPBKDF2,
		"LUKS1 sha1":           "--type luks1 -c aes-xts-plain64 -s 512 -h sha1" + cheapPBKDF2,
		"LUKS1 sha384":         "--type luks1 -c aes-xts-plain64 -s 256 -h sha384" + cheapPBKDF2,
		"LUKS1 ripemd160":      "--type luks1 -c aes-xts-plain64 -s 512 -h ripemd160" + cheapPBKDF2,
		"LUKS1 aligned":        "--type luks1 -c aes-xts-plain64 --align-payload 8192" + cheapPBKDF2,
		"LUKS2 pbkdf2 sha256":  "--type luks2" + cheapPBKDF2,
		"LUKS2 pbkdf2 sha1":    "--type luks2 --hash sha1" + cheapPBKDF2,
		"LUKS2 pbkdf2 sha512":  "--type luks2 --hash sha512" + cheapPBKDF2,
		"LUKS2 argon2i":        "--type luks2 --pbkdf argon2i" + cheapArgon2,
		"LUKS2 argon2id":       "--type luks2 --pbkdf argon2id" + cheapArgon2,
		"LUKS2 argon2id odd":   "--type luks2 --pbkdf argon2id --pbkdf-memory 1001 --pbkdf-parallel 3 --pbkdf-force-iterations 5",
		"LUKS2 256":            "--type luks2 -s 256" + cheapPBKDF2,
		"LUKS2 sectors 4096":   "--type luks2 --sector-size 4096" + cheapPBKDF2,
		"LUKS2 metadata 32k":   "--type luks2 --luks2-metadata-size 32k" + cheapPBKDF2,
		"LUKS2 metadata 4m":    "--type luks2 --luks2-metadata-size 4m" + cheapPBKDF2,
		"LUKS2 metadata 128k":  "--type luks2 --luks2-metadata-size 128k --luks2-keyslots-size 1m" + cheapPBKDF2,
		"LUKS2 keyslot cipher": "--type luks2 --keyslot-cipher aes-xts-plain64 --keyslot-key-size 256" + cheapPBKDF2,
	}
	for name, options := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDisk(t, 32<<20)
			passphrase := d.file("first", first)
			out, err := d.try("luksFormat "+options, "--key-file", passphrase)
			if err != nil && strings.Contains(options, "ripemd160") {
				t.Log(out)
				ublktest.MachineLacks(t, "a cryptsetup with "+options)
			} else if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			m := d.open()
			m.expectKey(t, first, d.key(passphrase))
			_, err = m.unlock(t, second)
			expectErr(t, err, ErrWrongPassphrase)
			_, v := m.mustRead(t)
			if uuid := strings.TrimSpace(d.run("luksUUID")); uuid != v.UUID {
				t.Errorf("UUID %q, cryptsetup has %q", v.UUID, uuid)
			}
		})
	}
}

// The error for a volume of cryptsetup that this package does not support names
// the reason.
func TestCryptsetupRefused(t *testing.T) {
	tests := map[string]string{
		"cipher aes-cbc-essiv:sha256": "--type luks2 -c aes-cbc-essiv:sha256 -s 256" + cheapPBKDF2,
		"cipher aes-cbc-plain64":      "--type luks1 -c aes-cbc-plain64 -s 256" + cheapPBKDF2,
		"cipher serpent-xts-plain64":  "--type luks2 -c serpent-xts-plain64" + cheapPBKDF2,
		"hash whirlpool":              "--type luks1 -c aes-xts-plain64 -h whirlpool" + cheapPBKDF2,
		"integrity protection":        "--type luks2 --integrity hmac-sha256 --integrity-no-wipe" + cheapPBKDF2,
	}
	for text, options := range tests {
		t.Run(text, func(t *testing.T) {
			d := newDisk(t, 32<<20)
			// Some formats need kernel modules or device mapper.
			if out, err := d.try("luksFormat "+options, "--key-file", d.file("first", first)); err != nil {
				t.Logf("%v: %s", err, out)
				ublktest.MachineLacks(t, "a kernel or cryptsetup with "+text)
			}
			_, err := refusal(d.open())
			expectErr(t, err, ErrUnsupported)
			if err != nil && !strings.Contains(err.Error(), text) {
				t.Errorf("%q does not tell of %q", err, text)
			}
		})
	}
}

// Keyslots are added, removed and given other priorities; a LUKS1 header is
// converted.
func TestCryptsetupKeyslots(t *testing.T) {
	for _, kind := range []string{"luks1", "luks2"} {
		t.Run(kind, func(t *testing.T) {
			d := newDisk(t, 32<<20)
			one, two, three := d.file("1", first), d.file("2", second), d.file("3", third)
			d.run("luksFormat -c aes-xts-plain64 --type "+kind+cheapPBKDF2, "--key-file", one)
			key := d.key(one)
			for _, passphrase := range []string{two, three} {
				// luksAddKey expects the new key's file after the device.
				args := append(strings.Fields("luksAddKey --batch-mode --disable-locks"+cheapPBKDF2), "--key-file", one, d.path, passphrase)
				if out, err := exec.Command("cryptsetup", args...).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			if kind == "luks1" {
				d.run("convert --type luks2")
			}
			for _, passphrase := range []string{first, second, third} {
				d.open().expectKey(t, passphrase, key)
			}
			d.run("luksRemoveKey", "--key-file", one)
			d.run("config --priority ignore --key-slot 1")
			m := d.open()
			for _, passphrase := range []string{first, second} {
				_, err := m.unlock(t, passphrase)
				expectErr(t, err, ErrWrongPassphrase)
			}
			m.expectKey(t, third, key)
		})
	}
}

// A volume is refused during a reencryption and opens when it is complete.
func TestCryptsetupReencryption(t *testing.T) {
	d := newDisk(t, 34<<20)
	passphrase := d.file("1", first)
	d.run("luksFormat --type luks2"+cheapPBKDF2, "--key-file", passphrase)
	if out, err := d.try("reencrypt --init-only"+cheapPBKDF2, "--key-file", passphrase); err != nil {
		t.Logf("%v: %s", err, out)
		ublktest.MachineLacks(t, "a cryptsetup that reencrypts a file")
	}
	_, err := refusal(d.open())
	expectErr(t, err, errReencryption)
	d.run("reencrypt --resume-only --force-offline-reencrypt", "--key-file", passphrase)
	d.open().expectKey(t, first, d.key(passphrase))
}

// cryptsetup's defaults, except for the costs: an eighth of the memory and the
// fewest passes. By itself cryptsetup measures for seconds what this machine does
// in two. TestLimitsAllowCryptsetup tests that the largest costs are allowed.
func TestCryptsetupDefaults(t *testing.T) {
	d := newDisk(t, 32<<20)
	want := make([]byte, 64)
	for i := range want {
		want[i] = byte(i)
	}
	d.run("luksFormat --pbkdf-memory 131072 --pbkdf-parallel 4 --pbkdf-force-iterations 4",
		"--key-file", d.file("1", first), "--volume-key-file", d.file("key", string(want)))
	m := d.open()
	h, v := m.mustRead(t)
	key := make([]byte, v.KeySize)
	if err := h.Unlock(bytes.NewReader(m.data), []byte(first), Limits{}, key); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(key, want) {
		t.Errorf("key %x, want %x", key, want)
	}
}
