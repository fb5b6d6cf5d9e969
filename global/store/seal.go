package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const keyIDSize = 8

// KeyFile is a Sealer by AES-256-GCM with a key from a file. Sealed bytes are the key's id, a random nonce, and the
// ciphertext with its tag.
type KeyFile struct {
	id   [keyIDSize]byte
	aead cipher.AEAD
}

// OpenKeyFile reads a key, and makes one when the file is absent. The file holds 32 bytes in hexadecimal and must be
// closed to group and others.
func OpenKeyFile(path string) (*KeyFile, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := makeKeyFile(path); err != nil {
			return nil, fmt.Errorf("store: make key file %s: %w", path, err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("store: key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("store: key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("store: key file %s is not a regular file", path)
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return nil, fmt.Errorf("store: key file %s has mode %04o, open to others; run chmod 600 on it", path, m)
	}
	text := make([]byte, 128)
	n, err := f.Read(text)
	if err != nil {
		return nil, fmt.Errorf("store: read key file %s: %w; restore it from a backup", path, err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text[:n])))
	if err != nil || len(key) != 32 {
		// The content is a secret, so the error doesn't quote it.
		return nil, fmt.Errorf("store: key file %s does not hold 64 hexadecimal digits; restore it from a backup", path)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("store: key file %s: %w", path, err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("store: key file %s: %w", path, err)
	}
	k := &KeyFile{aead: aead}
	sum := sha256.Sum256(append([]byte("zoneforge key id\x00"), key...))
	copy(k.id[:], sum[:])
	return k, nil
}

// makeKeyFile writes a whole key or nothing: it is linked into place, and a faster process's key wins.
func makeKeyFile(path string) error {
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".key-*") // made with mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.WriteString(hex.EncodeToString(key[:]) + "\n")
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		if err = os.Link(tmp.Name(), path); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	return errors.Join(err, os.Remove(tmp.Name()))
}

// ID names the key without telling it.
func (k *KeyFile) ID() string { return hex.EncodeToString(k.id[:]) }

// Seal encrypts plain and binds it to aad.
func (k *KeyFile) Seal(plain, aad []byte) ([]byte, error) {
	nonce := make([]byte, k.aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	out := append(append([]byte{}, k.id[:]...), nonce...)
	return k.aead.Seal(out, nonce, plain, aad), nil
}

// Open decrypts Seal's bytes; the same aad is needed.
func (k *KeyFile) Open(sealed, aad []byte) ([]byte, error) {
	head := keyIDSize + k.aead.NonceSize()
	if len(sealed) < head {
		return nil, errors.New("sealed bytes are too short")
	}
	if id := [keyIDSize]byte(sealed[:keyIDSize]); id != k.id {
		return nil, fmt.Errorf("sealed with key %x, this is key %x", id, k.id)
	}
	return k.aead.Open(nil, sealed[keyIDSize:head], sealed[head:], aad)
}
