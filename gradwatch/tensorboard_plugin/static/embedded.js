// Answers that a report in a file brings along, in the place of a server.
export class Embedded {}
