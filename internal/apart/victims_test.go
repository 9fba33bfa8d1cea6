package apart

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// victims are what a process attacks.
type victims struct {
	Server int    `json:"server"` // that of the process itself
	Holder int    `json:"holder"` // the process that serves the requests of another device, and has its key
	At     uint64 `json:"at"`     // where the key is in its memory
	Digest string `json:"digest"` // of the key
}

// keyBytes is the part of a key that the memory of a process has in one piece: the first half, which the schedule of the
// cipher begins with.
const keyBytes = 32

// argument returns the victims as an argument of a process.
func (v *victims) argument(t *testing.T) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// victimsOf returns the victims of an argument.
func victimsOf(argument string) *victims {
	v := &victims{}
	_ = json.Unmarshal([]byte(argument), v) // other roles have other arguments
	return v
}

// readKey reads the key from the file of the holder's memory.
func (v *victims) readKey() error {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", v.Holder))
	if err != nil {
		return err
	}
	defer func() { _ = memory.Close() }()
	got := make([]byte, keyBytes)
	if _, err := memory.ReadAt(got, int64(v.At)); err != nil {
		return err
	}
	if digest := sha256.Sum256(got); hex.EncodeToString(digest[:]) != v.Digest {
		return errors.New("not the key")
	}
	return nil
}

// newKey returns a key that nothing else has.
func newKey(t *testing.T) []byte {
	t.Helper()
	key := make([]byte, 2*keyBytes)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	return key
}

// newVictims finds a device's key in the memory of the process that serves the requests of the device. The server of the
// attacking process is this one.
func newVictims(t *testing.T, holder int, key []byte) *victims {
	t.Helper()
	digest := sha256.Sum256(key[:keyBytes])
	v := &victims{Server: os.Getpid(), Holder: holder, Digest: hex.EncodeToString(digest[:])}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", holder))
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", holder))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = memory.Close() }()
	for line := range strings.Lines(string(maps)) {
		var start, end uint64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &start, &end, &mode); err != nil || mode != "rw-p" || end-start > 64<<20 {
			continue
		}
		text := make([]byte, end-start)
		_, _ = memory.ReadAt(text, int64(start)) // some mappings have no memory
		if at := bytes.Index(text, key[:keyBytes]); at >= 0 {
			v.At = start + uint64(at)
			return v
		}
	}
	t.Fatalf("the key is not in the memory of process %d", holder)
	return nil
}

// attachEncrypted attaches an encrypted device of a new file, whose requests another process serves.
func attachEncrypted(ctl *ublk.Control, dir string, key *transfer.Secret) (*loop.Device, *Process, error) {
	path := filepath.Join(dir, "encrypted")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		return nil, nil, err
	}
	file, err := loop.OpenPath(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Close() }()
	p, err := Start("/proc/self/exe", []string{"test", servesRole, ""}, nil, nil)
	if err != nil {
		return nil, nil, err
	}
	cfg := loop.Config{Queues: 1, Depth: 4, Transfer: loop.TransferConfig{Name: transfer.AESXTSPlain64}, Key: key} // of little locked memory
	dev, err := loop.AttachApart(ctl, []*os.File{file}, cfg, used{p})
	return dev, p, err
}

// neighbour is the server of another device. It reads the key, tells which process has it, and ends with its input.
func neighbour(dir string) error {
	key, err := transfer.NewSecret(2 * keyBytes)
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(os.Stdin, key.Bytes()); err != nil {
		return err
	}
	ctl, err := ublk.OpenControl()
	if err != nil {
		return err
	}
	dev, p, err := attachEncrypted(ctl, dir, key)
	if err != nil {
		return err
	}
	fmt.Println(p.Pid())
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, dev.Close(), ctl.Close())
}

// startNeighbour starts the server of another device with a key, and returns the process that has the key.
func startNeighbour(t *testing.T, key []byte) (holder int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", neighbourRole, t.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server of the other device: %v", err)
		}
	})
	if _, err := in.Write(key); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscan(out, &holder); err != nil {
		t.Fatal(err)
	}
	return holder
}
