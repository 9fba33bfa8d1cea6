package oci

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/keyring"
	"github.com/ublk-loop/ublk-loop/internal/oci/below"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// encryption says how an image is encrypted and where its key is. The zero value stands
// for an image that is not encrypted.
type encryption struct {
	kind string // "", keyFile, keyKeyring or ephemeral
	name string // the path of the file, or the description of the key
}

// Kinds of keys. With ephemeral, the image is not encrypted. What the container writes gets a
// random key, which exists only in the server's memory.
const (
	keyFile    = "file"
	keyKeyring = "keyring"
	ephemeral  = "ephemeral"
)

// parseEncryption parses a reference to a key. It returns an error that wraps EINVAL for
// anything else.
func parseEncryption(value string) (encryption, error) {
	if value == "none" {
		return encryption{}, nil
	}
	if value == ephemeral {
		return encryption{kind: ephemeral}, nil
	}
	kind, name, _ := strings.Cut(value, ":")
	switch kind {
	case keyFile:
		return encryption{kind, name}, checkPath(name)
	case keyKeyring:
		if name == "" || strings.ContainsRune(name, 0) || strings.ContainsRune(name, utf8.RuneError) {
			return encryption{}, fmt.Errorf("not the description of a key: %w", unix.EINVAL)
		}
		return encryption{kind, name}, nil
	}
	return encryption{}, fmt.Errorf("not one of none, ephemeral, file:PATH, keyring:DESCRIPTION: %w", unix.EINVAL)
}

func (d *Disk) parseEncryption(value string) error {
	var err error
	d.encryption, err = parseEncryption(value)
	return err
}

// Transfer returns the transfer of the image's device.
func (e *encryption) Transfer() client.Transfer {
	if e.kind == "" || e.kind == ephemeral {
		return client.Transfer{}
	}
	return client.Transfer{Name: transfer.AESXTSPlain64}
}

// openKey returns a descriptor from which the server can read the key once, or nil for an
// image that is not encrypted and for an ephemeral key. This process does not read a key
// file. openKey returns an error if the settings do not allow the key, and an error that
// wraps EACCES if other users have access to its file.
func (s *Settings) openKey(e encryption, who Requester) (*os.File, error) {
	var key *os.File
	var err error
	switch e.kind {
	case keyFile:
		key, err = s.openKeyFile(e.name, who)
	case keyKeyring:
		key, err = s.openKeyringKey(e.name, who)
	}
	if err != nil {
		return nil, fmt.Errorf("key %s:%s: %w", e.kind, e.name, err)
	}
	return key, nil
}

func (s *Settings) openKeyFile(path string, who Requester) (*os.File, error) {
	named, err := openInAll(s.lists(who, allowedKeyFiles), path, below.OpenRegular)
	if err != nil {
		return nil, err
	}
	defer func() { _ = named.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(named.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return nil, fmt.Errorf("owner %d, mode %04o: other users have access to the key: %w", st.Uid, st.Mode&0o7777, unix.EACCES)
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", named.Fd()))
}

func (s *Settings) openKeyringKey(description string, who Requester) (*os.File, error) {
	for _, list := range s.lists(who, allowedKeys) {
		if !slices.Contains(list, description) {
			return nil, fmt.Errorf("not in allowed_keyring_keys: %w", unix.EPERM)
		}
	}
	// Other processes of the user cannot read the memory of this process until it executes
	// a program.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("make the process undumpable: %w", err)
	}
	key, err := transfer.NewSecret(transfer.MaxKeyBytes)
	if err != nil {
		return nil, err
	}
	defer key.Close()
	n, err := keyring.Read(description, key.Bytes())
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	// The write does not block, because a key is smaller than a pipe's buffer.
	_, err = w.Write(key.Bytes()[:n])
	if err = errors.Join(err, w.Close()); err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("write the key to the pipe: %w", err)
	}
	return r, nil
}
