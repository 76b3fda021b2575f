// What is run: ends at once, or, with an argument, never.

#include <unistd.h>

int main(int count, char **all) {
    (void)all;
    if (count > 1) pause();
    return 0;
}
