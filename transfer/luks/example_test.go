package luks_test

import (
	"fmt"
	"os"

	"github.com/ublk-loop/ublk-loop/transfer/luks"
)

func Example() {
	f, err := os.Open("disk.img")
	if err != nil {
		return // the example does not include a disk
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		panic(err)
	}
	header, err := luks.Read(f, info.Size()) // for a block device, Stat does not return the size
	if err != nil {
		panic(err)
	}
	volume, err := header.Volume()
	if err != nil {
		panic(err)
	}
	key := make([]byte, volume.KeySize) // better: locked memory outside the heap
	defer clear(key)
	if err := header.Unlock(f, []byte("passphrase"), luks.Limits{Memory: 1 << 30}, key); err != nil {
		panic(err)
	}
	fmt.Printf("%s, %d bytes at %d\n", volume.Cipher, volume.Size, volume.Offset)
}
