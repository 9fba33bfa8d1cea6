package keysource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/ublk-loop/ublk-loop/internal/await"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/luks"
)

// maxPassphraseBytes is the maximum size of a key file with a passphrase. It is
// cryptsetup's default.
const maxPassphraseBytes = 8 << 20

// Unlock opens a LUKS volume: it copies the header's settings to the configuration, and
// returns the volume's key. The caller must be a short-lived process, not the server,
// because deriving a key takes memory, up to gigabytes, and leaves intermediate values
// there.
func (s *Source) Unlock(ctx context.Context, file *os.File, c *loop.Config) (*transfer.Secret, []string, error) {
	l, err := s.openLocked(file, c)
	if errors.Is(err, luks.ErrNotLUKS) && s.Header == "" {
		err = hint.Add(err, "if the header is in another file, name that with {header}")
	}
	if err != nil {
		return nil, nil, err
	}
	volume, size := l.volume, uint64(l.part.Size())
	pass, warnings, err := s.passphrase(ctx, file.Name())
	if err != nil {
		l.close()
		return nil, nil, err
	}
	if volume.Secondary {
		warnings = append(warnings, "the first LUKS header is damaged or older, the second one is used: see cryptsetup repair")
	}
	key, err := await.Result(ctx, func() (*transfer.Secret, error) {
		defer l.close()
		defer pass.Close()
		return l.unlock(pass)
	})
	if err != nil {
		return nil, nil, err
	}
	useVolume(&volume, c, size)
	return key, warnings, nil
}

// locked is a LUKS volume whose key is not known.
type locked struct {
	part, at *loop.Part // the volume, and where the header is
	header   *luks.Header
	volume   luks.Volume
}

// openLocked opens the part of a file with a volume, and reads the header.
func (s *Source) openLocked(file *os.File, c *loop.Config) (*locked, error) {
	part, err := loop.OpenPart(file, c.Offset, c.SizeLimit)
	if err != nil {
		return nil, err
	}
	l := &locked{part: part, at: part}
	if s.Header != "" {
		if l.at, err = openHeader(s.Header); err != nil {
			_ = part.Close()
			return nil, err
		}
	}
	if l.header, l.volume, err = readHeader(l.at, part); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// unlock returns the key of the volume.
func (l *locked) unlock(pass *transfer.Secret) (*transfer.Secret, error) {
	key, err := transfer.NewSecret(l.volume.KeySize)
	if err != nil {
		return nil, err
	}
	err = l.header.Unlock(l.at, pass.Bytes(), luks.Limits{Memory: availableMemory(os.DirFS("/"))}, key.Bytes())
	debug.FreeOSMemory() // memory of the key derivation, possibly much
	if err != nil {
		key.Close()
		return nil, explainUnlock(err, pass.Bytes())
	}
	return key, nil
}

func (l *locked) close() {
	_ = l.part.Close()
	if l.at != l.part {
		_ = l.at.Close()
	}
}

// openHeader opens a detached header.
func openHeader(path string) (*loop.Part, error) {
	file, err := loop.OpenPath(path)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	defer func() { _ = file.Close() }()
	part, err := loop.OpenPart(file, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return part, nil
}

// readHeader reads the header of a part, which may be elsewhere, and checks that its volume is
// supported.
func readHeader(at, part *loop.Part) (*luks.Header, luks.Volume, error) {
	var header *luks.Header
	var err error
	if at == part {
		header, err = luks.Read(part, part.Size())
	} else {
		header, err = luks.ReadDetached(at, at.Size(), uint64(part.Size()))
	}
	if err != nil {
		return nil, luks.Volume{}, err
	}
	volume, err := header.Volume()
	return header, volume, err
}

// useVolume changes a device's configuration from the part of the file with the header to
// the volume in that part. total is the size of the part in bytes. A volume that reaches
// the end of the file gets no size limit, so that it grows with the file.
func useVolume(v *luks.Volume, c *loop.Config, total uint64) {
	c.Transfer.LUKSOffset = c.Offset
	c.Offset += v.Offset
	if c.SizeLimit != 0 || v.Offset+v.Size != total {
		c.SizeLimit = v.Size
	}
	c.Transfer.Name = v.Cipher
	c.Transfer.SectorSize = v.SectorSize
	c.Transfer.IVOffset = v.IVOffset
	c.Transfer.LUKS = v.Version
	c.Transfer.UUID = v.UUID
}

// explainUnlock adds a hint to an error of Unlock.
func explainUnlock(err error, pass []byte) error {
	switch {
	case errors.Is(err, luks.ErrLimit):
		return hint.Add(err, "the key needs more memory than is free, or the header asks for too much work")
	case errors.Is(err, luks.ErrWrongPassphrase) && bytes.HasSuffix(pass, []byte("\n")):
		return hint.Add(err, "the passphrase ends with a newline, which counts as a part of it: "+
			"write it without the newline, as printf %%s does")
	}
	return err
}

// passphrase returns the passphrase of a volume, from the given source or else from standard
// input, or from the terminal if standard input is a terminal or nothing.
func (s *Source) passphrase(ctx context.Context, name string) (*transfer.Secret, []string, error) {
	if s.IsGiven() {
		return s.read(ctx, maxPassphraseBytes)
	}
	if stdin := os.Stdin; isStream(stdin) {
		pass, err := await.Result(ctx, func() (*transfer.Secret, error) { return readPassphrase(stdin) })
		return pass, nil, err
	}
	pass, err := askPassphrase(ctx, fmt.Sprintf("Passphrase for %s: ", report.OneLine(name)))
	if errors.Is(err, errNoTerminal) {
		err = &hint.Error{Err: err, Hint: "give the passphrase with {key}, or on standard input"}
	}
	return pass, nil, err
}
