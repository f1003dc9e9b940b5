/* For: the least that starting and reaping any static program costs; the bar of the cheap verbs.
 * Owns: nothing.
 * Never: does anything. */
int main(void)
{
	return 0;
}
