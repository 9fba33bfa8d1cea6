package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/luks"
)

// passphraseSecret is the key of the passphrase in the secret of NodeStageVolume.
const passphraseSecret = "passphrase"

// unlockMemory bounds the memory that the header of an image can ask for. luksFormat uses
// a quarter of it.
const unlockMemory = 256 << 20

// attachEncrypted returns the open device of an encrypted volume. An existing device has the
// key already, so that its users need no passphrase.
func (d *Driver) attachEncrypted(ctx context.Context, v *pool.Volume, image *os.File, cfg client.Config, secrets map[string]string) (*client.Held, error) {
	path := d.pool.Volumes.ImagePath(v.ID)
	if err := d.awaken(ctx, v, secrets); err != nil {
		return nil, err
	}
	device, err := d.devices.of(ctx, image)
	if err != nil {
		return nil, err
	}
	if device != nil && device.State == live {
		return d.devices.client.Open(ctx, *device)
	}
	pass := secrets[passphraseSecret]
	if pass == "" {
		return nil, invalid("secrets: %s: the encrypted volume needs a passphrase", passphraseSecret)
	}
	if err := d.encrypt(ctx, v, image, path, pass); err != nil {
		return nil, err
	}
	secret, err := unlock(image, &cfg, pass)
	if err != nil {
		return nil, err
	}
	d.keys.put(v.ID, secret)
	key, err := pipeOf(secret)
	if err != nil {
		return nil, err
	}
	defer func() { _ = key.Close() }()
	return d.devices.attach(ctx, image, client.AddRequest{File: path, Config: cfg}, client.Files{File: image, Key: key})
}

// encrypt makes the LUKS header of a blank image. The record says so before and after.
func (d *Driver) encrypt(ctx context.Context, v *pool.Volume, image *os.File, path, pass string) error {
	if v.LUKS == pool.Formatted {
		return nil
	}
	if v.LUKS == pool.Blank {
		blank, err := mounts.IsBlank(image, 0, pool.ImageSize(v.Size, true))
		if err != nil {
			return err
		}
		if !blank {
			return status.Errorf(codes.FailedPrecondition, "volume %q has data but no LUKS header of this driver", v.ID)
		}
	}
	v.LUKS = pool.Formatting
	if err := d.pool.Volumes.Write(v.ID, v); err != nil {
		return err
	}
	if err := luksFormat(ctx, path, pass); err != nil {
		return err
	}
	if err := image.Sync(); err != nil {
		return err
	}
	v.LUKS = pool.Formatted
	return d.pool.Volumes.Write(v.ID, v)
}

// luksFormat makes a LUKS2 header. Its key derivation takes a fixed amount of memory, so that
// every node can open the volume.
func luksFormat(ctx context.Context, path, pass string) error {
	cmd := exec.CommandContext(ctx, "cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2",
		"--cipher", "aes-xts-plain64", "--key-size", "512", "--hash", "sha256", "--sector-size", "512",
		"--offset", fmt.Sprint(pool.HeaderBytes/512), "--pbkdf", "argon2id", "--pbkdf-memory", fmt.Sprint(unlockMemory/4/1024),
		"--pbkdf-parallel", "1", "--pbkdf-force-iterations", "4", "--key-file", "-", path)
	cmd.Stdin = strings.NewReader(pass)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cryptsetup luksFormat: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// unlock returns the key of an image, and adds the volume in the image to the configuration of the
// device.
func unlock(image *os.File, cfg *client.Config, pass string) (*transfer.Secret, error) {
	info, err := image.Stat()
	if err != nil {
		return nil, err
	}
	header, err := luks.Read(image, info.Size())
	if err != nil {
		return nil, fmt.Errorf("read the LUKS header: %w", err)
	}
	volume, err := header.Volume()
	if err != nil {
		return nil, fmt.Errorf("read the LUKS header: %w", err)
	}
	key, err := transfer.NewSecret(volume.KeySize)
	if err != nil {
		return nil, err
	}
	err = header.Unlock(image, []byte(pass), luks.Limits{Memory: unlockMemory}, key.Bytes())
	debug.FreeOSMemory() // memory of the key derivation
	if err != nil {
		key.Close()
	}
	if errors.Is(err, luks.ErrWrongPassphrase) {
		return nil, invalid("secrets: %s: it does not open the volume", passphraseSecret)
	}
	if err != nil {
		return nil, fmt.Errorf("unlock: %w", err)
	}
	cfg.Offset = volume.Offset
	cfg.Transfer = client.Transfer{
		Name: transfer.AESXTSPlain64, SectorSize: volume.SectorSize, IVOffset: volume.IVOffset,
		LUKS: volume.Version, UUID: volume.UUID,
	}
	return key, nil
}

// pipeOf returns a descriptor from which a key can be read once. The write does not block,
// because a key is smaller than the buffer of a pipe.
func pipeOf(key *transfer.Secret) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	_, err = w.Write(key.Bytes())
	if err = errors.Join(err, w.Close()); err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("write the key to a pipe: %w", err)
	}
	return r, nil
}
