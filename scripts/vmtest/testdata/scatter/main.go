// Command scatter writes to as many pages as its argument says, in a random order, so that hardly
// two of them are side by side in the memory of the machine.
package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func main() {
	n, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	memory, err := unix.Mmap(-1, 0, n*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(err)
	}
	for _, page := range rand.Perm(n) {
		memory[page*os.Getpagesize()] = 1
	}
	fmt.Println("done")
}
