package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/luks"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// passphraseSecret is the key of the passphrase in the secret of NodeStageVolume.
const passphraseSecret = "passphrase"

// unlockMemory bounds the memory that the header of an image can ask for. luksFormat uses
// a quarter of it.
const unlockMemory = 256 << 20

// attachEncrypted returns the open device of an encrypted volume. An existing device has the
// key already, so that its users need no passphrase.
func (d *Driver) attachEncrypted(ctx context.Context, v *pool.Volume, cfg client.Config, secrets map[string]string) (*client.Held, error) {
	if err := d.awaken(ctx, v, secrets); err != nil {
		return nil, err
	}
	image, err := d.pool.OpenDisk(v, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer func() { _ = image.Close() }()
	return d.devices.attach(ctx, image, func() (*client.Device, error) { return d.addEncrypted(ctx, v, cfg, secrets) })
}

// addEncrypted makes the device of an encrypted volume, and its LUKS header before its first device.
func (d *Driver) addEncrypted(ctx context.Context, v *pool.Volume, cfg client.Config, secrets map[string]string) (*client.Device, error) {
	pass := secrets[passphraseSecret]
	if pass == "" {
		return nil, invalid("secrets: %s: the encrypted volume needs a passphrase", passphraseSecret)
	}
	if err := d.encrypt(ctx, v, pass); err != nil {
		return nil, err
	}
	if err := d.prepareDisk(ctx, v); err != nil { // with its header the image can become a layer
		return nil, err
	}
	secret, volume, err := d.unlock(v, pass)
	if err != nil {
		return nil, err
	}
	d.keys.put(v.ID, secret)
	key, err := pipeOf(secret)
	if err != nil {
		return nil, err
	}
	defer func() { _ = key.Close() }()
	if v.Top != "" {
		return d.addEncryptedLayers(ctx, v, volume, cfg, key)
	}
	image, err := d.pool.OpenDisk(v, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	defer func() { _ = image.Close() }()
	cfg.Offset = volume.Offset
	cfg.Transfer = transferOf(volume)
	return d.devices.server.add(ctx, client.AddRequest{File: d.pool.DiskPath(v), Config: cfg}, client.Files{File: image, Key: key})
}

// addEncryptedLayers makes the device of an encrypted volume with layers. All layers have encrypted data,
// and the image has the header.
func (d *Driver) addEncryptedLayers(ctx context.Context, v *pool.Volume, volume *luks.Volume, cfg client.Config, key *os.File) (*client.Device, error) {
	d.chains.RLock()
	defer d.chains.RUnlock()
	chain, files, err := d.openLayers(v)
	if err != nil {
		return nil, err
	}
	defer pool.CloseLayers(files)
	return d.devices.server.add(ctx, client.AddRequest{Table: d.pool.Table(chain, coverOfVolume(volume)), Config: cfg}, client.Files{Table: files, Key: key})
}

// transferOf returns the transfer of a device of one file, as the header of the volume has it.
func transferOf(volume *luks.Volume) client.Transfer {
	return client.Transfer{
		Name: volume.Cipher, SectorSize: volume.SectorSize, IVOffset: volume.IVOffset, LUKS: volume.Version, UUID: volume.UUID,
	}
}

// coverOfVolume is transferOf for the line above the layers of a device.
func coverOfVolume(volume *luks.Volume) *table.Crypt {
	return &table.Crypt{
		Cipher: volume.Cipher, Key: table.Key{Bytes: volume.KeySize, Description: table.DefaultDescription},
		IVOffset: volume.IVOffset, Location: table.Location{Start: volume.Offset >> transfer.SectorShift}, SectorSize: volume.SectorSize,
	}
}

// encrypt makes the LUKS header of a blank image. The record says so before and after.
func (d *Driver) encrypt(ctx context.Context, v *pool.Volume, pass string) error {
	if v.LUKS == pool.Formatted {
		return nil
	}
	image, err := d.pool.Volumes.OpenImage(v.ID, os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { _ = image.Close() }()
	if v.LUKS == pool.Blank {
		blank, err := mounts.IsBlank(ctx, image, 0, v.ImageSize())
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
	if err := luksFormat(ctx, d.pool.Volumes.ImagePath(v.ID), pass); err != nil {
		return err
	}
	if err := image.Sync(); err != nil {
		return err
	}
	v.LUKS = pool.Formatted
	return d.pool.Volumes.Write(v.ID, v)
}

// isBlank reports whether a volume was never written to. An encrypted volume is blank if its
// image has nothing behind the header: the device shows noise there.
func (d *Driver) isBlank(ctx context.Context, v *pool.Volume, h *client.Held) (bool, error) {
	if !v.Settings.Encrypted {
		return mounts.IsBlank(ctx, h.Disk(), 0, v.Size)
	}
	disk, err := d.openDisk(v)
	if err != nil {
		return false, err
	}
	defer disk.Close()
	return mounts.IsBlank(ctx, disk, pool.HeaderBytes, v.Size)
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

// unlock returns the key of an encrypted volume, and the LUKS volume in its image.
func (d *Driver) unlock(v *pool.Volume, pass string) (*transfer.Secret, *luks.Volume, error) {
	image, err := d.openHeader(v)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = image.Close() }()
	return unlock(image, pass)
}

// openHeader opens the image that has the LUKS header of a volume. Stores above the image do not have
// it, because a device writes only what is behind the header.
func (d *Driver) openHeader(v *pool.Volume) (*os.File, error) {
	if v.Top == "" {
		return d.pool.Volumes.OpenImage(v.ID, os.O_RDONLY)
	}
	_, files, err := d.openChain(v.Top)
	if err != nil {
		return nil, err
	}
	pool.CloseLayers(files[1:])
	return files[0], nil
}

// unlock returns the key of an image, and the LUKS volume in it.
func unlock(image *os.File, pass string) (*transfer.Secret, *luks.Volume, error) {
	info, err := image.Stat()
	if err != nil {
		return nil, nil, err
	}
	header, err := luks.Read(image, info.Size())
	if err != nil {
		return nil, nil, fmt.Errorf("read the LUKS header: %w", err)
	}
	volume, err := header.Volume()
	if err != nil {
		return nil, nil, fmt.Errorf("read the LUKS header: %w", err)
	}
	key, err := transfer.NewSecret(volume.KeySize)
	if err != nil {
		return nil, nil, err
	}
	err = header.Unlock(image, []byte(pass), luks.Limits{Memory: unlockMemory}, key.Bytes())
	debug.FreeOSMemory() // memory of the key derivation
	if err == nil {
		return key, &volume, nil
	}
	key.Close()
	if errors.Is(err, luks.ErrWrongPassphrase) {
		return nil, nil, invalid("secrets: %s: it does not open the volume", passphraseSecret)
	}
	return nil, nil, fmt.Errorf("unlock: %w", err)
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
