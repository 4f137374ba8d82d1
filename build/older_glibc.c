/* Linked into each library of the engine, so that the file runs with an older glibc than it was built with.

   libstdc++, which is linked in too, takes random numbers from arc4random where it was built with glibc 2.36 or newer;
   nothing else in the engine asks for so new a symbol. */

#include <sys/random.h>

__attribute__((visibility("hidden"))) unsigned int arc4random(void)
{
    unsigned int value;
    while (getrandom(&value, sizeof value, 0) != sizeof value)
        ;
    return value;
}
