package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

const keyIDSize = 8

// maxKeys bounds the keys of a file.
const maxKeys = 8

var (
	// ErrNoSuchKey says that bytes are sealed with a key that the file lacks.
	ErrNoSuchKey = errors.New("the key file lacks the key")
	// ErrKeyNeeded says that a key can't be dropped.
	ErrKeyNeeded = errors.New("the key is needed")
)

// KeyFile is a Sealer by AES-256-GCM with keys from a file: the first seals, all open. Sealed bytes are the key's id, a random
// nonce, and the ciphertext with its tag. All methods are safe for concurrent use.
type KeyFile struct {
	path string
	// writing admits one who changes the file.
	writing sync.Mutex
	keys    atomic.Pointer[[]sealingKey]
}

type sealingKey struct {
	id   [keyIDSize]byte
	text string
	aead cipher.AEAD
}

func (k sealingKey) String() string { return hex.EncodeToString(k.id[:]) }

// OpenKeyFile reads keys, and makes one when the file is absent. The file holds one key a line, 32 bytes in hexadecimal each, and must
// be closed to group and others.
func OpenKeyFile(path string) (*KeyFile, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := makeKeyFile(path); err != nil {
			return nil, fmt.Errorf("store: make key file %s: %w", path, err)
		}
	}
	k := &KeyFile{path: path}
	if err := k.Reload(nil); err != nil {
		return nil, err
	}
	return k, nil
}

// Reload reads the file again. What can't be used is an error, and so are keys that are gone and that may doesn't let go, unless it is nil;
// then the keys of before stay.
func (k *KeyFile) Reload(may func(gone []string) error) error {
	keys, err := readKeyFile(k.path)
	if err != nil {
		return err
	}
	if before := k.keys.Load(); before != nil && may != nil {
		var gone []string
		for _, old := range *before {
			if !slices.ContainsFunc(keys, func(key sealingKey) bool { return key.id == old.id }) {
				gone = append(gone, old.String())
			}
		}
		if len(gone) > 0 {
			if err := may(gone); err != nil {
				return fmt.Errorf("store: key file %s: %w", k.path, err)
			}
		}
	}
	k.keys.Store(&keys)
	return nil
}

func readKeyFile(path string) ([]sealingKey, error) {
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
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return nil, fmt.Errorf("store: read key file %s: %w; restore it from a backup", path, err)
	}
	var keys []sealingKey
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, err := newSealingKey(line)
		if err != nil {
			return nil, fmt.Errorf("store: key file %s: line %d: %w", path, len(keys)+1, err)
		}
		if slices.ContainsFunc(keys, func(o sealingKey) bool { return o.id == key.id }) {
			return nil, fmt.Errorf("store: key file %s holds key %s twice; remove one line", path, key)
		}
		keys = append(keys, key)
	}
	switch {
	case len(keys) == 0:
		return nil, fmt.Errorf("store: key file %s does not hold 64 hexadecimal digits; restore it from a backup", path)
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("store: key file %s holds %d keys, at most %d are read; remove those that nothing needs", path, len(keys), maxKeys)
	}
	return keys, nil
}

// newSealingKey reads a line. The content is a secret, so the error doesn't quote it.
func newSealingKey(text string) (sealingKey, error) {
	key, err := hex.DecodeString(text)
	if err != nil || len(key) != 32 {
		return sealingKey{}, errors.New("it does not hold 64 hexadecimal digits; restore it from a backup")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealingKey{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return sealingKey{}, err
	}
	k := sealingKey{text: text, aead: aead}
	sum := sha256.Sum256(append([]byte("zoneforge key id\x00"), key...))
	copy(k.id[:], sum[:])
	return k, nil
}

// write replaces the file in one step.
func (k *KeyFile) write(keys []sealingKey) error {
	tmp, err := os.CreateTemp(filepath.Dir(k.path), ".key-*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("store: key file: %w", err)
	}
	for _, key := range keys {
		if err == nil {
			_, err = tmp.WriteString(key.text + "\n")
		}
	}
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), k.path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // it may be gone
		return fmt.Errorf("store: write key file %s: %w", k.path, err)
	}
	k.keys.Store(&keys)
	return nil
}

// AddKey makes a key in the file: as the first one, which seals from now on, or as the last, which only opens.
func (k *KeyFile) AddKey(first bool) (id string, err error) {
	k.writing.Lock()
	defer k.writing.Unlock()
	if err := k.Reload(nil); err != nil {
		return "", err
	}
	var raw [32]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", err
	}
	made, err := newSealingKey(hex.EncodeToString(raw[:]))
	if err != nil {
		return "", err
	}
	keys := append(slices.Clone(*k.keys.Load()), made)
	if first {
		keys = append([]sealingKey{made}, keys[:len(keys)-1]...)
	}
	if len(keys) > maxKeys {
		return "", fmt.Errorf("store: %w: key file %s holds %d keys already; retire some", ErrKeyNeeded, k.path, maxKeys)
	}
	return made.String(), k.write(keys)
}

// DropKey takes a key out of the file, of which the caller knows that nothing needs it. The one that seals stays.
func (k *KeyFile) DropKey(id string) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	if err := k.Reload(nil); err != nil {
		return err
	}
	keys := *k.keys.Load()
	at := slices.IndexFunc(keys, func(key sealingKey) bool { return key.String() == id })
	switch {
	case at < 0:
		return fmt.Errorf("store: %w: %s", ErrNoSuchKey, id)
	case at == 0:
		return fmt.Errorf("store: %w: %s seals what is written", ErrKeyNeeded, id)
	}
	return k.write(slices.Delete(slices.Clone(keys), at, at+1))
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

// IDs name the keys without telling them, the one that seals first.
func (k *KeyFile) IDs() (ids []string) {
	for _, key := range *k.keys.Load() {
		ids = append(ids, key.String())
	}
	return ids
}

// KeyOf is the id of the key that sealed bytes; empty for bytes that none sealed.
func (k *KeyFile) KeyOf(sealed []byte) string {
	if len(sealed) < keyIDSize {
		return ""
	}
	return hex.EncodeToString(sealed[:keyIDSize])
}

// Seal encrypts plain with the first key, and binds it to aad.
func (k *KeyFile) Seal(plain, aad []byte) ([]byte, error) {
	key := (*k.keys.Load())[0]
	nonce := make([]byte, key.aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	out := append(append([]byte{}, key.id[:]...), nonce...)
	return key.aead.Seal(out, nonce, plain, aad), nil
}

// Open decrypts Seal's bytes; the same aad is needed. Errors wrap ErrNoSuchKey where the key is not in the file.
func (k *KeyFile) Open(sealed, aad []byte) ([]byte, error) {
	for _, key := range *k.keys.Load() {
		head := keyIDSize + key.aead.NonceSize()
		if len(sealed) < head {
			return nil, errors.New("sealed bytes are too short")
		}
		if [keyIDSize]byte(sealed[:keyIDSize]) == key.id {
			return key.aead.Open(nil, sealed[keyIDSize:head], sealed[head:], aad)
		}
	}
	return nil, fmt.Errorf("%w: sealed with key %s, there are %s", ErrNoSuchKey, k.KeyOf(sealed), strings.Join(k.IDs(), ", "))
}
