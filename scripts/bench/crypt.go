package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// The encrypted paths use AES-256 in XTS mode with sectors of 4096 bytes, as
// LUKS2 does on current disks. All use the same key, which protects nothing
// here.

const cryptSector = 4096

// benchKey returns a key whose halves differ, because XTS needs this.
func benchKey() []byte {
	key := make([]byte, 64)
	for i := range key {
		key[i] = byte(i)
	}
	return key
}

// dmCrypt is dm-crypt on top of another path.
func dmCrypt(below path, name string, options ...string) path {
	const mapped = "ublk-loop-bench"
	options = append([]string{fmt.Sprintf("sector_size:%d", cryptSector)}, options...)
	var lower string
	p := below
	p.name = "dm-crypt" + name + " on " + below.name
	p.how = below.how + "; dmsetup create: crypt aes-xts-plain64, " + strings.Join(options, " ")
	p.attach = func(file string) (string, error) {
		var err error
		if lower, err = below.attach(file); err != nil {
			return "", err
		}
		sectors, err := output("blockdev", "--getsz", lower)
		if err != nil {
			return "", errors.Join(err, below.detach(lower))
		}
		table := fmt.Sprintf("0 %s crypt aes-xts-plain64 %x 0 %s 0 %d %s\n", sectors, benchKey(), lower, len(options), strings.Join(options, " "))
		if err := dmsetup(table, "create", mapped); err != nil {
			return "", errors.Join(err, below.detach(lower))
		}
		return "/dev/mapper/" + mapped, nil
	}
	p.detach = func(string) error {
		return errors.Join(dmsetup("", "remove", "--retry", mapped), below.detach(lower))
	}
	return p
}

// dmsetup runs dmsetup with a table on standard input, which does not expose
// the key, and without udev, which may be missing.
func dmsetup(table string, args ...string) error {
	cmd := exec.Command("dmsetup", args...)
	cmd.Env = append(os.Environ(), "DM_DISABLE_UDEV=1")
	cmd.Stdin = strings.NewReader(table)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("dmsetup %s: %w: %s", strings.Join(args, " "), err, &out)
	}
	return nil
}

// withKeyFile calls a function with the name of a file that contains the key.
func withKeyFile(use func(file string) error) (err error) {
	f, err := os.CreateTemp("", "ublk-loop-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(benchKey())
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return use(f.Name())
}

// encryptedNullBlk is null_blk under another name, because its results are not
// comparable with the others.
func encryptedNullBlk() (*backing, error) {
	b, err := nullBlk()
	if err == nil {
		b.name += ", encrypted"
	}
	return b, err
}
